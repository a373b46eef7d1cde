// Scripts of data, loaded when they are wanted, and the arrays in them.
// A script calls atlasData(key, value): pages may load scripts from disk, where they may not fetch files.

const waiting = new Map();
const kept = new Map();
const KEPT = 48;

globalThis.atlasData = (key, value) => {
  waiting.get(key)?.resolve(value);
};

/** The value that the script data/<key>.js holds; the last 48 are kept. */
export function load(key) {
  const known = kept.get(key);
  if (known !== undefined) {
    kept.delete(key);
    kept.set(key, known);
    return known;
  }
  const promise = new Promise((resolve, reject) => {
    waiting.set(key, { resolve });
    const script = document.createElement("script");
    script.src = `data/${key}.js`;
    script.onload = () => {
      waiting.delete(key);
      script.remove();
      reject(new Error(`data/${key}.js holds no data`)); // without effect where it held some
    };
    script.onerror = () => {
      waiting.delete(key);
      kept.delete(key);
      script.remove();
      reject(new Error(`data/${key}.js could not be read; copy the whole folder of the atlas`));
    };
    document.head.append(script);
  });
  kept.set(key, promise);
  for (const old of kept.keys()) {
    if (kept.size <= KEPT) break;
    if (!old.startsWith("wall") && old !== "overview" && old !== "galaxies") kept.delete(old);
  }
  return promise;
}

const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i2: Int16Array, f4: Float32Array, f8: Float64Array };

/** A typed array of what `pack_array` wrote. */
export function unpack({ t, b }) {
  const text = atob(b);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new KINDS[t](bytes.buffer);
}

/** Maps of `pack_maps`: { n, h, w, cells: [Float32Array, ...] }. */
export function unpackMaps({ h, w, low, step, cells }) {
  const [lows, steps, all] = [unpack(low), unpack(step), unpack(cells)];
  const size = h * w;
  const maps = Array.from(lows, (l, i) =>
    Float32Array.from(all.subarray(i * size, (i + 1) * size), (q) => l + steps[i] * q));
  return { h, w, maps };
}

/** What all pages share: the overview, and lazily the galaxies and the wall of each table. */
export const atlas = { about: null };

let galaxiesPromise = null;

/** Ids, positions, planes and oddities of all galaxies. */
export function galaxies() {
  galaxiesPromise ??= load("galaxies").then((raw) => ({
    ids: raw.ids,
    place: new Map(raw.ids.map((id, i) => [id, i])),
    split: unpack(raw.split),
    ra: raw.ra ? unpack(raw.ra) : null,
    dec: raw.dec ? unpack(raw.dec) : null,
    planes: raw.planes.map((plane) => ({
      ...plane,
      xs: unpack(plane.xs),
      ys: unpack(plane.ys),
      curves: plane.curves.map((curve) => ({ name: curve.name, x: unpack(curve.x), y: unpack(curve.y) })),
    })),
    oddities: raw.oddities.map((odd) => ({ ...odd, values: unpack(odd.values) })),
  }));
  return galaxiesPromise;
}

const walls = new Map();

/** Cards of a table: features in the order of the wall, with all numbers by which they are sorted. */
export function wall(index) {
  if (!walls.has(index)) {
    walls.set(index, load(`wall${index}`).then((raw) => {
      const features = unpack(raw.feature);
      const given = new Map(raw.given.map((entry) => [entry.feature, entry]));
      return {
        ...raw,
        index,
        table: atlas.about.tables[index],
        features,
        place: new Map(Array.from(features, (feature, i) => [feature, i])),
        best: unpack(raw.best),
        rho: unpack(raw.rho),
        givenNames: given,
        numbers: raw.numbers.map((each) => ({ ...each, values: unpack(each.values) })),
        head: raw.head && {
          columns: raw.head.columns,
          weights: unpack(raw.head.weights),
          bias: unpack(raw.head.bias),
        },
      };
    }));
  }
  return walls.get(index);
}

/** Spearman's rho of the card at `place` with a label, NaN where it is not known. */
export function rhoOf(cards, place, label) {
  const stored = cards.rho[place * atlas.about.labels.length + label];
  return stored === -32768 ? NaN : stored / 10000;
}

/** A label in words. */
export function readable(label) {
  const at = atlas.about.labels.indexOf(label);
  return at < 0 ? label : atlas.about.words[at];
}

/** What a feature is called: by the user, else by what it goes with. */
export function titleOf(cards, place) {
  return cards.givenNames.get(cards.features[place])?.name || cards.suggested[place];
}

/** Evidence of one feature. */
export async function featurePage(cards, place) {
  const chunk = await load(`features${cards.index}/${Math.floor(place / cards.chunk)}`);
  return chunk[place % cards.chunk];
}

/** The galaxies of a feature and its value there: { rows, values }. */
export function columnOf(page) {
  const values = unpack(page.values);
  return { rows: page.rows ? unpack(page.rows) : Uint32Array.from(values, (_, i) => i), values };
}

export function tableIndex(name) {
  return atlas.about.tables.findIndex((table) => table.name === name);
}

"""Arrays in scripts: what is packed is what a page unpacks, and nothing in it can be code."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sfnetlab.atlas.packing import pack_array, pack_correlations, pack_maps, pack_rows, write_script


def unpack(packed):
    return np.frombuffer(base64.b64decode(packed["b"]), dtype=f"<{packed['t']}")


@given(arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=True)))
def test_floats_are_kept_bit_for_bit(values):
    np.testing.assert_array_equal(unpack(pack_array(values, "f4")), values)


def test_places_take_the_smallest_kind_that_holds_them():
    assert pack_rows(np.array([0, 65535]))["t"] == "u2"
    assert pack_rows(np.array([0, 65536]))["t"] == "u4"
    assert unpack(pack_rows(np.array([], dtype=int))).size == 0


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="u2 holds 0 to 65535, got -1 to 3"):
        pack_array([-1, 3], "u2")
    with pytest.raises(ValueError, match="i2 holds"):
        pack_array([np.nan], "i2")


def test_correlations_have_four_decimals_and_know_what_is_not_known():
    np.testing.assert_array_equal(unpack(pack_correlations([0.12344, -1, np.nan])), [1234, -10000, -32768])


@given(
    arrays(np.float32, (3, 2, 4), elements=st.floats(-100, 100, width=32, allow_subnormal=False)),
)
def test_maps_are_kept_to_a_step_between_their_least_and_largest(maps):
    packed = pack_maps(maps)
    low, step, cells = (unpack(packed[name]) for name in ("low", "step", "cells"))
    found = low[:, None] + step[:, None] * cells.reshape(3, -1)
    assert np.abs(found - maps.reshape(3, -1)).max() <= 0.51 * step.max() + 1e-4
    assert (packed["h"], packed["w"]) == (2, 4)


def test_a_script_is_one_call_in_ascii_whatever_the_catalogue_says(tmp_path):
    hostile = 'a"); alert(1); //\u2028</script>\u00e9'
    write_script(tmp_path / "deep" / "x.js", "key", {"ids": [hostile]})
    text = (tmp_path / "deep" / "x.js").read_text(encoding="ascii")
    assert text.startswith('atlasData("key",')
    assert json.loads(text[len('atlasData("key",') : -3]) == {"ids": [hostile]}

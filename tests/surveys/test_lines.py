"""BPT demarcations, MPA-JHU classes and the mass-metallicity relation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.surveys.lines import bpt_class, kauffmann_2003, kewley_2001, mpa_jhu_class, tremonti_2004

ratio = st.floats(-3, 2)


def test_demarcations_take_their_published_values() -> None:
    assert kauffmann_2003(-0.95) == pytest.approx(0.61 / -1.0 + 1.3)
    assert kewley_2001(-0.53) == pytest.approx(0.61 / -1.0 + 1.19)


def test_demarcations_are_nan_at_and_beyond_their_poles() -> None:
    assert np.isnan(kauffmann_2003([0.05, 0.06, 1.0])).all()
    assert np.isnan(kewley_2001([0.47, 0.6])).all()


@given(x=st.floats(-1.2, 0.04))  # to the left of about -1.28 the two published curves cross
def test_kauffmann_lies_below_kewley(x: float) -> None:
    assert kauffmann_2003(x) < kewley_2001(x)


@given(x=ratio, y=ratio)
def test_bpt_class_agrees_with_a_scalar_loop(x: float, y: float) -> None:
    if x < 0.05 and y < 0.61 / (x - 0.05) + 1.3:
        expected = 1
    elif x < 0.47 and y < 0.61 / (x - 0.47) + 1.19:
        expected = 3
    else:
        expected = 4
    assert bpt_class(x, y) == expected


def test_ratios_that_are_not_finite_are_unclassifiable() -> None:
    assert bpt_class([np.nan, -0.5, np.inf], [0.0, np.nan, 0.0]).tolist() == [-1, -1, -1]


def test_mpa_jhu_classes_follow_signal_to_noise() -> None:
    # [NII], Ha, [OIII], Hb
    star_forming, agn, no_oiii, weak, nothing = (
        [30.0, 100.0, 20.0, 30.0], [100.0, 100.0, 200.0, 30.0], [90.0, 100.0, 1.0, 30.0], [1.0, 5.0, 1.0, 1.0],
        [1.0, -3.0, 1.0, 1.0],
    )  # fmt: skip
    fluxes = [star_forming, agn, no_oiii, weak, nothing]
    assert mpa_jhu_class(fluxes, np.full((5, 4), 2.0)).tolist() == [1, 4, 5, 2, -1]


def test_mpa_jhu_class_names_the_shape_it_wants() -> None:
    with pytest.raises(ValueError, match=r"\(n_galaxies, 4\), got \(3,\)"):
        mpa_jhu_class([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_tremonti_relation_holds_between_8_5_and_11_5() -> None:
    assert tremonti_2004(10.0) == pytest.approx(8.952)
    assert np.isnan(tremonti_2004([8.4, 11.6, np.nan])).all()
    assert (np.diff(tremonti_2004(np.linspace(8.5, 11.5, 50))) > 0).all()

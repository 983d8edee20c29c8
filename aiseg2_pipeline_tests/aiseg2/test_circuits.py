"""A circuit's spellings have one key, and every name can be stored."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2.circuits import (
    MAX_NAME_CHARS,
    circuit_key,
    clean_name,
    match,
    shown_name,
    sum_by_name,
)
from aiseg2_pipeline.aiseg2.models import Circuit


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        ("ＬＤＫ・エアコン", "ＬＤＫエアコン"),
        ("洋室１・エアコン", "洋室１エアコン"),
        ("キッチン　パントリー", "キッチン　パントリー"),
        ("　ＬＤ ", "ＬＤ"),
        ("a\0b", "a b"),
        ("・", ""),
        ("-", "-"),
        ("洋室１ エアコン", "洋室1　ｴｱｺﾝ"),
        ("洋室１･エアコン", "洋室１エアコン"),
    ],
)
def test_both_spellings_of_a_circuit_have_one_key(listed: str, shown: str) -> None:
    assert circuit_key(listed) == circuit_key(shown)
    assert circuit_key(shown_name(listed)) == circuit_key(listed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("洋室１", "洋室２"),
        ("ＬＤＫエアコン", "エアコンＬＤＫ"),
        ("A", "a"),
    ],
)
def test_different_names_have_different_keys(one: str, other: str) -> None:
    assert circuit_key(one) != circuit_key(other)


@pytest.mark.parametrize(
    ("listed", "names", "shown", "unlisted"),
    [
        (["洋室１・エアコン", "ＬＤ"], ["ＬＤ", "洋室１エアコン"], {0: "洋室１エアコン", 1: "ＬＤ"}, []),
        (["洋室１・エアコン"], ["洋室１・エアコン"], {0: "洋室１・エアコン"}, []),
        (["洋室１ エアコン", "ＩＨ"], ["IH", "洋室１エアコン"], {0: "洋室１エアコン", 1: "IH"}, []),
        (["ＩＨ", "IH"], ["IH", "ＩＨ"], {0: "ＩＨ", 1: "IH"}, []),
        (["居間", "ＬＤ"], ["ＬＤ", "リビング"], {0: "リビング", 1: "ＬＤ"}, []),
        (["居間", "居間"], ["リビング", "リビング"], {0: "リビング", 1: "リビング"}, []),
        (["居間", "寝室"], ["リビング", "ベッド"], {}, ["リビング", "ベッド"]),
        (["ＬＤ", "納戸"], ["ＬＤ"], {0: "ＬＤ"}, []),
        (["ＬＤ"], ["ＬＤ", "納戸"], {0: "ＬＤ"}, ["納戸"]),
        (["ＬＤ", "ＩＨ", "ＩＨ"], ["ＬＤ", "ＩＨ"], {0: "ＬＤ"}, ["ＩＨ"]),
        (["ＬＤ", "ＩＨ"], ["ＬＤ", "ＩＨ", "ＩＨ"], {0: "ＬＤ"}, ["ＩＨ", "ＩＨ"]),
        (["ＩＨ", "ＩＨ", "ＬＤ"], ["ＩＨ", "ＩＨ２", "ＬＤ"], {2: "ＬＤ"}, ["ＩＨ", "ＩＨ２"]),
        (["ＬＤ・ＩＨ"], None, {0: "ＬＤＩＨ"}, []),
    ],
)
def test_circuits_match_by_spelling_by_key_and_by_the_one_name_that_is_left(
    listed: list[str], names: list[str] | None, shown: dict[int, str], unlisted: list[str]
) -> None:
    circuits = [Circuit(str(n), name) for n, name in enumerate(listed)]
    matched = match(circuits, names)
    assert dict(matched.shown) == {str(n): name for n, name in shown.items()}
    assert [circuit.circuit_id for circuit in matched.unshown] == [
        str(n) for n in range(len(listed)) if n not in shown
    ]
    assert list(matched.unlisted) == unlisted


def test_an_unseen_circuit_gets_page_1113_s_spelling() -> None:
    assert shown_name("ＬＤＫ・エアコン") == "ＬＤＫエアコン"
    assert shown_name("UB　洗面所") == "UB　洗面所"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("a\x00b\tc\nd\x7fe\x85f", "a b c d e f"),
        ("\ud800x\udfff", "\ufffdx\ufffd"),
        ("a,b=c \"d\" \\ 'e' R&D <br>", "a,b=c \"d\" \\ 'e' R&D <br>"),
        ("絵文字🔌\u200b\u2028　", "絵文字🔌\u200b\u2028　"),
        ("", ""),
    ],
)
def test_a_name_keeps_all_but_control_characters_and_lone_surrogates(sent: str, stored: str) -> None:
    assert clean_name(sent) == stored


@given(st.text(st.characters(codec=None)))
def test_any_name_can_be_stored_and_cleaning_it_again_changes_nothing(name: str) -> None:
    cleaned = clean_name(name)
    cleaned.encode()
    assert not any(unicodedata.category(char) == "Cc" for char in cleaned)
    assert len(cleaned) == min(len(name), MAX_NAME_CHARS)
    assert clean_name(cleaned) == cleaned
    assert circuit_key(cleaned) == circuit_key(name) == circuit_key(shown_name(name))


def test_values_of_one_name_are_summed_in_order_of_first_appearance() -> None:
    sums = sum_by_name(
        [("ＬＤ", 224), ("ＩＨ", 0), ("電子レンジ", 5), ("ＬＤ", 6), ("電子レンジ", 1.5), ("電子レンジ", 1)]
    )
    assert list(sums.items()) == [("ＬＤ", 230), ("ＩＨ", 0), ("電子レンジ", 7.5)]
    assert sum_by_name([]) == {}


@pytest.mark.parametrize("values", [(None, 5, 6), (5, None, 6), (5, 6, None), (None, None, 0)])
def test_a_sum_with_a_missing_part_is_missing(values: tuple[float | None, ...]) -> None:
    assert sum_by_name([("ＩＨ", value) for value in values] + [("ＬＤ", 1)]) == {"ＩＨ": None, "ＬＤ": 1}

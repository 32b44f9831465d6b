"""A few damaged files for libltc, always the same; `tests/proof/fuzz.py library` runs as many as time allows."""

import fuzz_library


def test_damaged_files_are_refused_or_run_with_the_bits_of_the_vm() -> None:
    outcomes = [fuzz_library.case(seed) for seed in range(60)]
    assert set(outcomes) >= {"refused", "agreed"}

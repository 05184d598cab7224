"""The documentation's pictures: each is there, each is shown, and each is one that a test makes."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_pictures_of_the_documentation_are_those_that_the_tests_make() -> None:
    there = {file.stem for file in (ROOT / "docs" / "seeing").glob("*.png")}
    text = (ROOT / "docs" / "seeing.md").read_text()
    made = re.findall(r'shoot\(page, tmp_path, "([^"]+)"', (ROOT / "tests" / "watch" / "test_page.py").read_text())
    assert there == set(re.findall(r"\(seeing/(.+?)\.png\)", text)) == set(made)


def test_the_path_to_why_the_policy_bluffs_has_five_pictures_in_their_order() -> None:
    text = (ROOT / "docs" / "seeing.md").read_text()
    assert [int(number) for number in re.findall(r"seeing/why-(\d)", text)] == [1, 2, 3, 4, 5]

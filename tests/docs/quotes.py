"""Code in the pages stands in a file that is compiled and run, line by line. Blocks of Python and JavaScript are run themselves, by
the tests of the packages whose README they are in. The README names each example. Usage: quotes.py [PAGE...]; without a page: all."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "bindings").glob("*/README.md"))]
SOURCES = {
    "cpp": ["tests/docs/*.cpp", "examples/**/*.cpp", "examples/**/*.hpp", "tests/contract/*_test.cpp"],
    "c": ["examples/**/*.c", "tests/capi/*.c"],
    "cmake": ["tests/package/*/CMakeLists.txt"],
}
RUN = {"python": "bindings/python/README.md", "js": "bindings/node/README.md"}


def lines_of(text):
    """Without indentation, empty lines and the space before a comment: layout is the formatter's."""
    return [re.sub(r"\s+(//|#|/\*)", r" \1", line.strip()) for line in text.splitlines() if line.strip()]


def holds(source, block):
    return any(source[at:at + len(block)] == block for at in range(len(source) - len(block) + 1))


def main(pages):
    sources = {
        language: [lines_of(file.read_text()) for pattern in patterns for file in sorted(ROOT.glob(pattern))]
        for language, patterns in SOURCES.items()
    }
    seen = 0
    faults = []
    for page in pages:
        text = page.read_text()
        for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
            language, block = found[1], lines_of(found[2])
            where = f"{page}:{text[:found.start()].count(chr(10)) + 1}"
            if language in RUN:
                seen += 1
                if page != ROOT / RUN[language]:
                    faults.append(f"{where}: {language} is run in {RUN[language]} only")
            elif language in SOURCES:
                seen += 1
                if not any(holds(source, block) for source in sources[language]):
                    faults.append(f"{where}: this block stands in none of {', '.join(SOURCES[language])}")
    if pages is PAGES:  # whoever looks for an example finds it in the README
        listed = re.findall(r"\]\(examples/(\w+)/", (ROOT / "README.md").read_text())
        folders = [folder.name for folder in sorted((ROOT / "examples").iterdir()) if folder.is_dir()]
        faults += [f"README.md: examples/{name} is not in its table" for name in folders if name not in listed]
    print("\n".join(faults))
    print(f"{seen} blocks, {len(faults)} that no test holds")
    return 1 if faults or seen == 0 else 0


if __name__ == "__main__":
    sys.exit(main([pathlib.Path(name).resolve() for name in sys.argv[1:]] or PAGES))

"""Put the tables of committed rows into README.md, between its markers: ``make results``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from musictf.report.run import report

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = {
    "demo": "The demo",
    "transfer": "The demo's backbone on rendered pop",
    "first_run": "The first run on real input",
}
START, END = "<!-- results: made by `make results`, do not edit -->", "<!-- end of results -->"


def main() -> None:
    """Render the experiments and replace the block in the README."""
    parts = []
    for name, title in EXPERIMENTS.items():
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            report([ROOT / "experiments" / name], output=page)
            text = page.read_text()
        (ROOT / "experiments" / name / "results.md").write_text(text)
        parts.append(f"<details><summary>{title}: tables</summary>\n\n{_headlines(text)}\n\n</details>\n")
    readme = ROOT / "README.md"
    block = f"{START}\n{''.join(parts)}{END}"
    readme.write_text(re.sub(f"{re.escape(START)}.*?{re.escape(END)}", lambda _: block, readme.read_text(), flags=re.S))


def _headlines(text: str) -> str:
    """The tables without the scores after the second, the controls of frame-level tasks and the notes on scores."""
    lines: list[str] = []
    is_frame_level = False
    for line in text.splitlines():
        if line.startswith("## "):
            is_frame_level = not line.startswith(("## tagging", "## key"))
        if line.startswith("|"):
            cells = line.strip("|").split("|")
            if is_frame_level and cells[1].strip() in {"class", "average"}:
                continue
            lines.append("|" + "|".join(cells[:8]) + "|")
        elif not line.startswith("- **Note"):
            lines.append(line.replace("## ", "#### ", 1) if line.startswith("## ") else line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


if __name__ == "__main__":
    main()

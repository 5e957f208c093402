"""The README's example runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "packages" / "cambrian-data" / "README.md"


def test_the_example_runs(tmp_path):
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("There are ")
    assert len((tmp_path / "scenes-llava.jsonl").read_text().splitlines()) == 100


def test_the_package_never_imports_torch():
    code = "import sys, cambrian_data, cambrian_data.scenes; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

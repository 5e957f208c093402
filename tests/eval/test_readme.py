import re
from pathlib import Path

from tests.eval.benchmark_folder import write_cvbench

README = Path(__file__).resolve().parents[2] / "packages" / "cambrian-eval" / "README.md"


def test_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    write_cvbench(tmp_path / "cv-bench")
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(README), "exec"), {})
    assert "| Count |" in capsys.readouterr().out
    assert (tmp_path / "runs" / "random" / "report.html").is_file()

import json

from cambrian_eval import evaluate
from cambrian_eval.models.baselines import ConstantReply
from tests.eval.benchmark_folder import write_cvbench


def test_command_writes_the_files_beside_the_run_and_says_which(cambrian, tmp_path):
    folder, run = write_cvbench(tmp_path / "data", per_group=1), tmp_path / "run"
    evaluate("cvbench", ConstantReply("B"), data=folder, output=run)
    done = cambrian("export-predictions", run, "--format", "vlmevalkit", "--json")
    assert done.status == 0, done.stderr
    assert [path.rpartition("/")[2] for path in json.loads(done.stdout)["files"]] == [
        *("cambrian-cvbench-2D.tsv", "constant-B_cambrian-cvbench-2D.tsv"),
        *("cambrian-cvbench-3D.tsv", "constant-B_cambrian-cvbench-3D.tsv"),
    ]
    assert (run / "vlmevalkit" / "cambrian-cvbench-2D.tsv").is_file()


def test_folder_without_a_run_and_unknown_format_are_refused(refused, tmp_path):
    assert "found no run.json" in refused("export-predictions", tmp_path, "--format", "lmms-eval")
    assert 'found format "helm"' in refused("export-predictions", tmp_path, "--format", "helm")

"""The benchmarks, one module each, by name; nothing is imported until one is asked for."""

from cambrian_eval.registry import Registry

TASKS = Registry(
    "task",
    {
        "cvbench": "cambrian_eval.tasks.cvbench:CVBENCH",
        "cvbench-2d": "cambrian_eval.tasks.cvbench:CVBENCH_2D",
        "cvbench-3d": "cambrian_eval.tasks.cvbench:CVBENCH_3D",
    },
)

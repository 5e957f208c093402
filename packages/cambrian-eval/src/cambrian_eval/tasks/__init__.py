"""The benchmarks, one module each, by name; nothing is imported until one is asked for."""

from cambrian_eval.registry import Registry

TASKS = Registry(
    "task",
    {
        "ai2d": "cambrian_eval.tasks.ai2d:TASK",
        "blink": "cambrian_eval.tasks.blink:TASK",
        "chartqa": "cambrian_eval.tasks.chartqa:TASK",
        "cvbench": "cambrian_eval.tasks.cvbench:CVBENCH",
        "cvbench-2d": "cambrian_eval.tasks.cvbench:CVBENCH_2D",
        "cvbench-3d": "cambrian_eval.tasks.cvbench:CVBENCH_3D",
        "docvqa": "cambrian_eval.tasks.docvqa:TASK",
        "gqa": "cambrian_eval.tasks.gqa:TASK",
        "infovqa": "cambrian_eval.tasks.infovqa:TASK",
        "mathvista": "cambrian_eval.tasks.mathvista:TASK",
        "mmbench-cn": "cambrian_eval.tasks.mmbench:MMBENCH_CN",
        "mmbench-en": "cambrian_eval.tasks.mmbench:MMBENCH_EN",
        "mme": "cambrian_eval.tasks.mme:TASK",
        "mmmu": "cambrian_eval.tasks.mmmu:TASK",
        "mmstar": "cambrian_eval.tasks.mmstar:TASK",
        "mmvet": "cambrian_eval.tasks.mmvet:TASK",
        "mmvp": "cambrian_eval.tasks.mmvp:TASK",
        "ocrbench": "cambrian_eval.tasks.ocrbench:TASK",
        "pope": "cambrian_eval.tasks.pope:TASK",
        "qbench": "cambrian_eval.tasks.qbench:TASK",
        "realworldqa": "cambrian_eval.tasks.realworldqa:TASK",
        "scienceqa": "cambrian_eval.tasks.scienceqa:TASK",
        "seed": "cambrian_eval.tasks.seed:TASK",
        "stvqa": "cambrian_eval.tasks.stvqa:TASK",
        "synthdog": "cambrian_eval.tasks.synthdog:TASK",
        "textvqa": "cambrian_eval.tasks.textvqa:TASK",
        "textvqa-no-ocr": "cambrian_eval.tasks.textvqa:WITHOUT_OCR",
        "vizwiz": "cambrian_eval.tasks.vizwiz:TASK",
        "vstar": "cambrian_eval.tasks.vstar:TASK",
    },
)

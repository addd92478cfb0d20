"""The last lines of each --help: how a command is typed."""

EXIT_STATUS = """Start with: bottleneck demo. On your own pictures: bottleneck fit FOLDER --out MODEL

Exit status: 0 done. 1 verify found damage, or an error that is ours.
2 something to put right, which is said. 130 Ctrl-C. 143 SIGTERM.
Finished work is kept in every case."""


def _lines(*examples: str) -> str:
    return "\n\n".join(["Examples:", *(f"  bottleneck {example}" for example in examples)])


EXAMPLES = {
    "plan": _lines(
        "plan pictures/train --backbone resnet50",
        "plan pictures/train --time-budget 600 --json",
    ),
    "fit": _lines(
        "fit pictures/train --backbone resnet50 --out model",
        "fit pictures/train --strategy finetune --set finetune.lr=0.01 --set finetune.steps=500",
        "fit --config model.toml --out again",
    ),
    "evaluate": _lines("evaluate model pictures/test", "evaluate model pictures/test --on-error skip --json"),
    "predict": _lines(
        "predict model new_pictures/ --top-k 3",
        "predict model new_pictures/ --proba --out classes.parquet",
        "predict model - --format jsonl < paths.txt",
    ),
    "cache": _lines(
        "cache pictures --backbone resnet50 --cache-dir cache",
        "cache pictures --cache-dir cache --workers 4 --on-error skip",
        "cache paths.parquet --cache-dir cache --engine dask --scheduler tcp://head:8786",
        "cache paths.parquet --cache-dir cache --shard 3/100",
    ),
    "verify": _lines("verify --cache-dir cache", "verify pictures --cache-dir cache --repair"),
    "compact": _lines("compact --cache-dir cache"),
    "report": _lines(
        "report model pictures/test --out report.html",
        "report model pictures/test --train pictures/train",
    ),
    "compare": _lines(
        "compare pictures/train embedded resnet50 timm:convnext_tiny --cache-dir cache",
        "compare pictures/train resnet18 mobilenet_v2=weights.safetensors --plot cost.png",
    ),
    "export": _lines("export model classifier.onnx"),
    "demo": _lines("demo", "demo --finetune", "demo --out demo"),
    "doctor": _lines("doctor", "doctor --json"),
}

"""Numbers and strategies in words."""

from bottleneck.planner.records import FineTune, LinearProbe, Scratch, Strategy, StrategyName


def label(strategy: Strategy) -> str:
    """Name a strategy in a few words."""
    match strategy:
        case LinearProbe(layers="penultimate"):
            return "probe, penultimate layer"
        case LinearProbe():
            return "probe, all stages"
        case FineTune(steps=steps):
            return f"fine-tuning, {steps:,} steps"
        case Scratch(steps=steps, folds=folds):
            return f"scratch, {folds + 1} x {steps:,} steps"


def name_of(strategy: Strategy) -> StrategyName:
    """Return the name by which ``strategy=`` asks for this strategy."""
    match strategy:
        case LinearProbe(layers="penultimate"):
            return "probe"
        case LinearProbe():
            return "all_stages_probe"
        case FineTune():
            return "finetune"
        case Scratch():
            return "scratch"


def duration(seconds: float) -> str:
    """Say a time the way people do: ``0.35 s``, ``12 s``, ``5 min 13 s``, ``2 h 05 min``, ``3.2 days``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    hours = minutes // 60
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours / 24:,.1f} days" if hours < 24_000 else f"{hours / 8_766:,.0f} years"


def size(n_bytes: float) -> str:
    """Say a number of bytes in decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 99.5 else f"{n_bytes:.2g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.0f} PB"


def percent(share: float) -> str:
    """Say an accuracy in percent."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """Say a difference of accuracies in signed points."""
    return f"{100 * difference:+.1f} points"

"""The commands about the feature cache: fill it, check and repair it, write it anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.output import emit
from bottleneck.errors import InvalidInputError

if TYPE_CHECKING:
    from bottleneck import Backbone, FeatureCache
    from bottleneck.cache import FeatureSpace, VerifyReport
    from bottleneck.progress import ProgressCallback


def cache(
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of images, or a CSV or Parquet table with a column of paths; also as s3:// and the like.",
            metavar="DATA",
            show_default=False,
        ),
    ],
    backbone: opt.BackboneName = "embedded",
    weights: opt.Weights = "default",
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    batch_size: opt.BatchSize = "auto",
    n_jobs: Annotated[
        int,
        typer.Option("--workers", "--n-jobs", help="Processes to start; with --engine dask, workers to wait for."),
    ] = 1,
    engine: Annotated[
        str,
        typer.Option(
            help="Who runs the workers: joblib (this machine) or dask.", autocompletion=opt.one_of("joblib", "dask")
        ),
    ] = "joblib",
    scheduler: Annotated[str | None, typer.Option(help="Address of Dask's scheduler: tcp://HOST:8786.")] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Only share I of N, from 1/N to N/N: one job of a job array.", metavar="I/N"),
    ] = None,
    on_error: opt.OnError = "raise",
    config: opt.Config = None,
    config_out: opt.WriteConfig = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Compute the features of every image into the cache. Stopped at any moment, it goes on where it was."""
    from bottleneck import cache_features, load_backbone
    from bottleneck.extraction import ExtractionSettings
    from bottleneck.features import default_cache_dir
    from bottleneck.images import as_image_source
    from bottleneck.progress import progress_bars

    opt.check_images(data)
    settings = ExtractionSettings(device=device, precision=precision, batch_size=opt.parse_batch_size(batch_size))
    where = cache_dir or default_cache_dir()
    share = None if shard is None else _parse_shard(shard)
    images = as_image_source(data)
    with progress_bars(enabled=not quiet) as progress:
        report = cache_features(
            images,
            load_backbone(backbone, opt.parse_weights(weights)),
            where,
            settings=settings,
            on_error=on_error,
            n_jobs=n_jobs,
            engine=engine,
            scheduler=scheduler,
            shard=share,
            progress=progress,
        )
    if report.rows_skipped and not report.rows_extracted + report.rows_cached:
        raise InvalidInputError(f"None of the {report.rows_skipped} images can be read, so nothing is in the cache.")
    if share is not None and not report.rows_extracted + report.rows_cached + report.rows_skipped:
        print(f"Share {share[0]} of {share[1]} holds no images ({len(images):,} in all): fewer shares would do.")
    print(
        f"{report.rows_extracted} images extracted, {report.rows_cached} found, {report.rows_skipped} skipped "
        f"in {report.seconds:.1f} s ({report.images_per_second:.0f} images/s), in {where}"
    )
    emit(
        json,
        rows_extracted=report.rows_extracted,
        rows_cached=report.rows_cached,
        rows_skipped=report.rows_skipped,
        images_per_second=report.images_per_second,
        seconds=report.seconds,
        space=report.space,
    )


Workers = Annotated[
    int | None,
    typer.Option("--workers", "--n-jobs", help="Processes that share the work.", show_default="one"),
]


def verify(
    images: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of images; with --repair, what was dropped is computed again at once.",
            metavar="IMAGES",
            show_default=False,
        ),
    ] = None,
    cache_dir: opt.CacheDir = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged shards, so that their rows are computed anew when needed.")
    ] = False,
    backbone: opt.BackboneName = "embedded",
    weights: opt.Weights = "default",
    device: opt.Device = "auto",
    n_jobs: Workers = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Check every file of a feature cache against its checksum; with --repair, mend what is damaged."""
    from bottleneck import load_backbone
    from bottleneck.progress import progress_bars

    opened = _open_cache(cache_dir)
    if images is not None:
        opt.check_images(str(images))
    with progress_bars(enabled=not quiet) as progress:
        report = (opened.repair if repair else opened.verify)(n_jobs=n_jobs, progress=progress)
    bad_shards = [bad for bad in report.bad if not bad.is_list]
    _print_findings(report, n_damaged=len(bad_shards), mended=repair)
    extracted = 0
    if repair and bad_shards:
        damaged = {bad.folder.name for bad in bad_shards}
        spaces = [space for space in opened.spaces() if space.digest in damaged]
        if images is None:
            for space in spaces:
                print(f"To extract them again: {_command_for(opened, space)}")
        else:
            network = load_backbone(backbone, opt.parse_weights(weights))
            with progress_bars(enabled=not quiet) as progress:
                extracted = _extract_again(images, opened, spaces, network, device=device, progress=progress)
    if report.bad and not repair:
        print(f"Repair with: {_repair_command(images, cache_dir, backbone=backbone, weights=weights, device=device)}")
    emit(
        json,
        good=report.n_good,
        damaged=len(bad_shards),
        damaged_rows=report.n_bad_rows,
        list_faults=len(report.bad) - len(bad_shards),
        rows_extracted=extracted,
    )
    if report.bad and not repair:
        raise typer.Exit(1)


def _print_findings(report: "VerifyReport", *, n_damaged: int, mended: bool) -> None:
    """Print every damaged file and how many there are."""
    for bad in report.bad:
        print(f"damaged: {bad.path}: {bad.reason}" + ("" if bad.is_list else f" ({bad.n_rows} rows)"))
    for newer in report.newer:
        print(f"newer: {newer}: only a newer version of bottleneck-features can read it")
    dropped = " and dropped" if mended and n_damaged else ""
    print(f"{report.n_good} shards are good, {n_damaged} damaged{dropped} ({report.n_bad_rows} rows)")
    if n_faults := len(report.bad) - n_damaged:
        print(f"{n_faults} faults in lists of shards{', mended' if mended else ''}; no row is lost by them")


def compact(
    cache_dir: opt.CacheDir = None,
    n_jobs: Workers = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Write the many small shards of a feature cache as few large ones. Stopped at any moment, nothing is lost."""
    from bottleneck.progress import progress_bars

    with progress_bars(enabled=not quiet) as progress:
        report = _open_cache(cache_dir).compact(n_jobs=n_jobs, progress=progress)
    print(f"{report.shards_before} shards became {report.shards_after}, of {report.n_bytes / 2**20:.1f} MiB in all")
    emit(json, shards_before=report.shards_before, shards_after=report.shards_after, bytes=report.n_bytes)


def _parse_shard(shard: str) -> tuple[int, int]:
    """Return the two numbers of I/N; whether there is such a share is judged by whoever cuts."""
    i, slash, n = shard.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal()):
        raise InvalidInputError(f"--shard must be I/N with I from 1 to N, such as 3/100. Got {shard!r} instead.")
    return int(i), int(n)


def _open_cache(cache_dir: Path | None) -> "FeatureCache":
    from bottleneck import FeatureCache
    from bottleneck.features import default_cache_dir

    where = cache_dir or default_cache_dir()
    if not where.is_dir():
        raise InvalidInputError(f"There is no cache folder {where}. Name one with --cache-dir.")
    opened = FeatureCache(where)
    if not opened.spaces():
        raise InvalidInputError(f"The folder {where} holds no features. Name a cache folder with --cache-dir.")
    return opened


def _repair_command(images: Path | None, cache_dir: Path | None, *, backbone: str, weights: str, device: str) -> str:
    """Return the command that repairs what was just checked, with whatever was said besides."""
    from shlex import join

    said = (
        ("--cache-dir", cache_dir, None),
        ("--backbone", backbone, "embedded"),
        ("--weights", weights, "default"),
        ("--device", device, "auto"),
    )
    given = [part for name, value, default in said if value != default for part in (name, str(value))]
    return join(["bottleneck", "verify", *([] if images is None else [str(images)]), "--repair", *given])


def _command_for(opened: "FeatureCache", space: "FeatureSpace") -> str:
    """Return the command that extracts what a space lacks; what is not known stays in capitals."""
    from shlex import quote

    from bottleneck.features import MADE_BY

    made_by = opened.space(space).read_note(MADE_BY) or {}
    backbone, weights = (
        quote(str(made_by[part])) if part in made_by else part.upper() for part in ("backbone", "weights")
    )
    return (
        f"bottleneck cache IMAGES --backbone {backbone} --weights {weights} --precision {space.precision} "
        f"--cache-dir {quote(str(opened.cache_dir))}"
    )


def _extract_again(
    images: Path,
    opened: "FeatureCache",
    spaces: "list[FeatureSpace]",
    network: "Backbone",
    *,
    device: str,
    progress: "ProgressCallback",
) -> int:
    """Extract what the spaces lack of the images; return how many that were."""
    from bottleneck import cache_features
    from bottleneck.extraction import ExtractionSettings

    extracted = 0
    for space in spaces:
        if space.weights != network.weights_digest:
            print(f"Not made by {network.name} with these weights. For those: {_command_for(opened, space)}")
            continue
        settings = ExtractionSettings(device=device, precision=space.precision)
        report = cache_features(images, network, opened, settings=settings, on_error="skip", progress=progress)
        print(f"{report.rows_extracted} images extracted again, {report.rows_cached} were there")
        extracted += report.rows_extracted
    return extracted

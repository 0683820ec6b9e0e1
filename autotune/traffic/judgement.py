"""What has to be said of a log that was read, whether it can be judged, and whether its rate can be meant."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.study import Study
from autotune.traffic.covered import Covered
from autotune.traffic.options import ReadOptions
from autotune.traffic.problems import CLOCK_JUMP, problem_words
from autotune.traffic.profile import WorkloadProfile
from autotune.traffic.requests import Columns, Gathered
from autotune.traffic.source import Source
from costmodel.arch import active_params


def left_out(gathered: Gathered, held: Columns, options: ReadOptions) -> list[str]:
    """What of a log is not in the window's requests, in sentences."""
    said = []
    if held.requests_each > 1:
        said.append(f"only every {held.requests_each:g}th request is held, for memory")
    if gathered.failed:
        share = gathered.failed / max(gathered.lines, 1)
        said.append(f"{gathered.failed:,} requests that were not served ({share:.1%}) are left out")
    if gathered.other:
        said.append(f"{gathered.other:,} lines about something else (embeddings, health checks, tools) are left out")
    if gathered.unmatched:
        said.append(f"{gathered.unmatched:,} requests that are not of --match are left out")
    if len(gathered.models) > 1 and not options.match:
        most = ", ".join(name for name, _ in gathered.models.most_common(4))
        said.append(
            f"requests of {len(gathered.models)} models are taken together ({most}): --match model=NAME parts them"
        )
    return said


def uncovered(covered: Covered | None, start_s: float, end_s: float) -> list[str]:
    """What of the window the log does not cover, in sentences."""
    if covered is None:
        return []
    said, share = [], covered.share(start_s, end_s)
    if share < 0.95:
        said.append(
            f"the log covers {share:.1%} of the window ({covered.seconds / 3600:.3g} of {(end_s - start_s) / 3600:.3g} "
            "h): the rate is that of the time covered"
        )
    if covered.gaps_s:
        said.append(
            f"{len(covered.gaps_s)} gaps without any request, {covered.gap_s / 3600:.3g} h in all, are taken as not "
            "logged, not as silence of users"
        )
    return said


def refusal_of(  # noqa: PLR0913  # what is known of a log
    opened: Source,
    gathered: Gathered,
    held: Columns,
    problems: Mapping[str, int],
    options: ReadOptions,
    covered: Covered | None,
    window: tuple[float, float],
) -> str | None:
    """Why nothing can be decided on a window; None: it can."""
    if opened.damage is not None:
        return opened.damage
    unusable = sum(count for kind, count in problems.items() if kind != CLOCK_JUMP)
    if unusable > options.max_bad_frac * gathered.lines:
        share = unusable / max(gathered.lines, 1)
        return (
            f"{share:.1%} of the lines are of no use, more than {options.max_bad_frac:.0%} (--max-bad): "
            f"{problem_words(problems)}"
        )
    if held.times_s.size == 0:
        told = [f"{gathered.lines:,} lines read"] if gathered.lines else []
        left = {"not served": gathered.failed, "about something else": gathered.other}
        left["not of --match"] = gathered.unmatched
        told += [f"{count:,} {what}" for what, count in left.items() if count]
        return "there is no request in the window" + (f" ({', '.join(told)})" if told else "")
    if covered is None or covered.seconds <= 0.0:
        return "all requests came at one instant: there is no rate"
    share = covered.share(*window)
    if share < options.least_cover_frac:
        return (
            f"the log covers {share:.2%} of the window, less than {100 * options.least_cover_frac:g} % (--min-cover): "
            "give the window that it covers"
        )
    return None


MOST_FRAC, LEAST_FRAC = 1.0, 2e-4
"""Of the cluster's peak FLOP/s, what traffic needs: above no plan serves it, below the cluster idles."""


def question(study: Study, profile: WorkloadProfile) -> str | None:
    """What to ask of traffic that a study's cluster cannot serve or would hardly notice, in one line; None: nothing."""
    computed = profile.prompt_mean * (1.0 - (profile.shared_prefix_frac or 0.0)) + profile.output_mean
    needed = 2.0 * active_params(study.arch) * computed * profile.rate.mean_per_s
    cluster = study.cluster
    share = needed / (cluster.gpus * max(cluster.gpu.peak_flops_per_s.values()))
    if LEAST_FRAC <= share <= MOST_FRAC:
        return None
    load = f"{profile.rate.mean_per_s:,.3g} requests/s of {profile.prompt_mean + profile.output_mean:,.0f} tokens"
    need = f"{share:,.3g} times" if share > 1.0 else f"{share:.2g} of"
    return (
        f"question: is the rate right? {load} need {need} the peak FLOP/s of {cluster.gpus} x {cluster.gpu.name} "
        "(--time-unit says the unit of a log's times)"
    )

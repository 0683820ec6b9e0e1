"""Whether traffic can be meant for a cluster: a rate that is off by a thousand is questioned, not believed."""

from __future__ import annotations

from autotune.study import Study
from autotune.traffic.profile import WorkloadProfile
from costmodel.arch import active_params

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

"""Mistakes in the serving model: what steps look like, how many requests decode, what waits in front of prefill."""

from __future__ import annotations

from tests.mutants.change import Change, changes_of

SERVING: tuple[Change, ...] = (
    *changes_of(
        "costmodel/serving/replica_share.py",
        ("context=load.isl + load.osl / 2.0", "context=load.isl + load.osl / 3.0"),
        ("load.max_num_seqs), 1.0) * layout.attn_dp", "load.max_num_seqs), 1.0)"),
    ),
    *changes_of(
        "costmodel/serving/steady_state.py",
        (
            "running_s + held_steps * mix.round_s + engine.handover_steps",
            "running_s + held_steps * mix.round_s + 2.0 * engine.handover_steps",
        ),
        ("running_s = 0.5 * step_s", "running_s = 0.25 * step_s"),
        ("MOST_ROUNDS = 40", "MOST_ROUNDS = 2"),
        ("(share.in_flight - share.running) * (unloaded_s + decode_s)", "(share.in_flight - share.running) * decode_s"),
        ("tokens = share.new + share.rounds * load.step_tokens", "tokens = share.new + share.rounds"),
    ),
    *changes_of(
        "costmodel/serving/settle.py",
        ("SETTLED_REL = 1e-7", "SETTLED_REL = 1e-2"),
        ("np.where(done, getattr(self, name)", "np.where(False, getattr(self, name)"),
    ),
    *changes_of(
        "costmodel/serving/balance.py",
        ("half_queue_s = 0.5 * r.queue_weight", "half_queue_s = r.queue_weight"),
        ("BISECTIONS = 14", "BISECTIONS = 5"),
    ),
    *changes_of(
        "costmodel/serving/step_mix.py",
        ("(self.chunks - 1.0) * self.with_prompts_s", "self.chunks * self.with_prompts_s"),
        ("needed / np.maximum(waits, 1e-9)", "needed / 1e-9"),
    ),
    *changes_of(
        "costmodel/serving/loaded_steps.py",
        ("apart, engine, base_s = -np.expm1(-needed),", "apart, engine, base_s = 0.5 * needed,"),
        ("passes / (1.0 / steps.apart + alone)", "passes / (1.0 / steps.apart)"),
    ),
    *changes_of(
        "costmodel/serving/benchmark_waves.py",
        ("BUNCHED_MOST = 0.6", "BUNCHED_MOST = 0.9"),
        ("0.5 * load.waves * (LENGTHS_WIDTH", "load.waves * (LENGTHS_WIDTH"),
    ),
    *changes_of(
        "costmodel/step/pipeline_pass.py",
        ("self.through_s + (count - 1.0) * self.stage_s", "self.through_s + count * self.stage_s"),
        (
            "eager * np.maximum(floor * layers - through, 0.0)",
            "np.maximum(floor * layers - through, 0.0)",
        ),
        ("width = arch.hidden_size / START_HIDDEN", "width = 1.0 + 0.0 * arch.hidden_size"),
    ),
    *changes_of(
        "costmodel/simulation/replica.py",
        ("max(now + through, self._leaves_s + slowest)", "now + through"),
        ("self._unsettled = len(self.lanes)", "self._unsettled = 0"),
        ("handed = ends + table.handover_steps * self._following_s(lane, finished)", "handed = ends"),
        ("seats = inf if table.stages == 1 else UNEVEN", "seats = inf if True else UNEVEN"),
    ),
    *changes_of(
        "costmodel/simulation/single_queue.py",
        ("context += accepted * batch", "context += batch"),
        ("held_back.append((joined, now))", "held_back.append((batch, now))"),
    ),
    *changes_of(
        "costmodel/simulation/prompt_steps.py",
        ("budget = room * ranks", "budget = room"),
        ("opened[:turn] = cut", "opened[:] = cut"),
    ),
    *changes_of(
        "costmodel/simulation/pipeline_queue.py",
        ("else now + through_s\n", "else leaves\n"),
        ("unsettled = stages\n", "unsettled = 0\n"),
        ("seats_most - running", "seats_most - running + 1"),
    ),
    *changes_of(
        "costmodel/simulation/progress.py",
        ("+ (decoded - self._began[i]) * self._accepted", ""),
        ("self._began[i] = decoded", "self._began[i] = 0"),
    ),
    *changes_of(
        "costmodel/simulation/decode_steps.py",
        ("slope = through_slopes[i]", "slope = slopes[i]"),
    ),
    *changes_of(
        "costmodel/simulation/sampled_windows.py",
        ("weight=(whole / np.maximum(sampled, 1))[stratum]", "weight=np.ones(stratum.size)"),
        ("start - warm_up_s, start, last", "start, start, last"),
    ),
    *changes_of(
        "costmodel/simulation/step_time.py",
        ("slope *= drafted * sequences * accepted", "slope *= sequences"),
    ),
)

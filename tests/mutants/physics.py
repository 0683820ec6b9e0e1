"""Mistakes in the cost model: what a step takes, what memory holds, what errors and pools make of it."""

from __future__ import annotations

from tests.mutants.change import Change, changes_of

PHYSICS: tuple[Change, ...] = (
    *changes_of(
        "costmodel/step/operators.py",
        ("passed = 8.0 * stream", "passed = 4.0 * stream"),
        ("(rows + gemms.rate.pad_rows * hit) * gemms.flops_per_row", "rows * gemms.flops_per_row"),
        ("mean=1.0 / load,\n", "mean=load,\n"),
        ("out.send_s * (layout.pp - 1.0)", "out.send_s * layout.pp"),
    ),
    *changes_of(
        "costmodel/step/attention_cores.py",
        (
            "flops = 2.0 * (block.heads / layout.attn_tp) * (block.head_dim",
            "flops = 1.0 * (block.heads / layout.attn_tp) * (block.head_dim",
        ),
        ("(2.0 * block.kv_rank + block.rope_dim)", "(block.kv_rank + block.rope_dim)"),
        ("6.0 * state + 4.0 * SCAN_CHUNK", "6.0 * state + 2.0 * SCAN_CHUNK"),
    ),
    *changes_of(
        "costmodel/arch/attention.py",
        ("return self.kv_heads_per_rank(cut) * (self.head_dim + self", "return self.kv_heads * (self.head_dim + self"),
        ("context=tokens / (cut.attn_cp * cut.dcp) * each", "context=tokens * each"),
    ),
    *changes_of(
        "costmodel/step/step_inputs.py",
        ("np.where(stored < 1.5, 0.5, 1.0)", "np.where(stored < 1.5, 1.0, 1.0)"),
        ("rate.row_passes * width", "2.0 * width"),
        ("picked_frac=np.asarray(experts.routed / experts.experts)", "picked_frac=np.asarray(1.0 / experts.experts)"),
    ),
    *changes_of(
        "costmodel/step/kernel_laws.py",
        ("total += shorter", "total -= shorter"),
    ),
    *changes_of(
        "costmodel/step/collectives.py",
        ("2.0 * (local - 1.0) / local / links.all_reduce", "(local - 1.0) / local / links.all_reduce"),
        ("np.maximum(local - 2.0, 0.0)", "np.maximum(local - 1.0, 0.0)"),
        ("2.0 * (domains - 1.0) / domains / local / links", "2.0 * (domains - 1.0) / domains / links"),
        ("np.minimum(*self._by_kernels_s(volume))", "np.maximum(*self._by_kernels_s(volume))"),
        ("1.0 / (rate * layout.attn_tp)", "1.0 / rate"),
    ),
    *changes_of(
        "costmodel/step/expert_routing.py",
        ("(2.0 * np.log(ranks))", "np.log(ranks)"),
        ("cv2 / experts.per_rank(layout) + 1.0", "cv2 + 1.0"),
    ),
    *changes_of(
        "costmodel/step/memory.py",
        ("LOGITS_BYTES = 6.0", "LOGITS_BYTES = 4.0"),
        ("CONTEXT_BYTES = 0.6e9", "CONTEXT_BYTES = 0.9e9"),
        ("widest = np.maximum(widest, each)", "widest = np.minimum(widest, each)"),
        ("memory_fraction * (cluster.hbm_bytes - fixed)", "memory_fraction * cluster.hbm_bytes - fixed"),
        ("        held = fitting\n", "        break\n"),
    ),
    *changes_of(
        "costmodel/step/step_work.py",
        ("cached_tokens + (new_tokens + 1.0) / 2.0", "cached_tokens + (new_tokens + 1.0) / 3.0"),
        ("capped * (capped - 1.0) / (2.0 * np", "capped * (capped - 1.0) / (1.0 * np"),
    ),
    *changes_of(
        "costmodel/step/step_inputs.py",
    ),
    *changes_of(
        "costmodel/estimate/error_model.py",
        ("2.0 * TARGET_CORRELATION * first * rest", "1.0 * TARGET_CORRELATION * first * rest"),
        ("self.wait_s * (moved.running_s / self.running_s)", "self.wait_s"),
        ("gpus, experts = layout.width * layout.pp,", "gpus, experts = layout.width,"),
        ("(REACH_SD[target] * self.beyond) ** 2", "REACH_SD[target] ** 2 * self.beyond"),
    ),
    *changes_of(
        "costmodel/estimate/result.py",
        ("state.requests_per_s * throughput_factor", "state.requests_per_s / throughput_factor"),
        ("e2e_s=ttft + moved.outputs * moved.tpot_s", "e2e_s=ttft + load.osl * moved.tpot_s"),
    ),
    *changes_of(
        "costmodel/estimate/request_mix.py",
        ("rate = 1.0 / taken.sum(axis=0)", 'rate = (weight * stacked("requests_per_s")).sum(axis=0)'),
        ("stay = kinds.weight * kinds.osl", "stay = kinds.weight"),
    ),
    *changes_of(
        "costmodel/estimate/batch.py",
        ("batch.reserves_whole_output > 0, 1.0, 0.5)", "batch.reserves_whole_output > 0, 1.0, 1.0)"),
    ),
    *changes_of("costmodel/estimate/normal.py", ("Z90 = 1.2815515655446004", "Z90 = 1.0")),
    *changes_of(
        "costmodel/calibration/residual.py",
        ("_times(self.own, phi**2)", "_times(self.own, phi)"),
        ("BORROWED_SD[t] ** 2 if borrows", "BORROWED_SD[t] if borrows"),
    ),
    *changes_of(
        "costmodel/disaggregated/prefill_pool.py",
        ("(1.0 + self.length_cv2)", "(1.0 - self.length_cv2)"),
        ("return np.minimum(self.most_per_s, self.links_per_s)", "return self.most_per_s"),
        ("own = lone / (1.0 - utilisation * (1.0 - lone / full))", "own = lone"),
    ),
    *changes_of(
        "costmodel/disaggregated/decode_pool.py",
        ("self.factors.handover_steps * tpot_s", "tpot_s"),
        ("wire, start = handed * self.wire_s,", "wire, start = self.wire_s,"),
        ("self.load.decode_rounds * idle", "self.load.decode_rounds"),
        ("held = residence / decode_s", "held = decode_s / decode_s"),
        ("(own.running_step_s + own.longest_s) * factor", "own.longest_s * factor"),
    ),
    *changes_of(
        "costmodel/disaggregated/decode_steps.py",
        ("rounds, LEAST_ROUNDS) / local.share", "rounds, LEAST_ROUNDS)"),
        ("with_prompts_s=mix.with_prompts_s + beyond[0]", "with_prompts_s=mix.with_prompts_s"),
        ("round_s=more * mix.turn_s", "round_s=mix.turn_s"),
        ("loaded.kernel_s * longer - alone", "loaded.kernel_s - alone"),
    ),
    *changes_of(
        "costmodel/estimate/open_loop.py",
        ("shares[:, -1] += beyond", "shares[:, -1] += 0.0"),
        ("* ratio / (1.0 - ratio) / served[:, -1]", "* 0.0"),
        ("uneven = cv2 / replicas\n", "uneven = cv2 + 0.0 * replicas\n"),
        ("np.minimum(uneven, np.sqrt(uneven)) * seconds", "uneven * seconds"),
        ("0.5 * np.maximum(uneven - 1.0, 0.0)", "0.0 * np.maximum(uneven - 1.0, 0.0)"),
        ("- 0.5 * slope * at\n", "\n"),
        ("short * np.expm1(", "0.0 * np.expm1("),
        ("parts[OWN_PREFILL] + np.minimum(passes, 1.0) *", "parts[OWN_PREFILL] + 1.0 *"),
        (
            "prompt_s * came_since(per_s * before_s, uneven) / free_frac",
            "prompt_s * came_since(per_s * before_s, uneven)",
        ),
        ("came_since(per_s * before_s, uneven)", "came_since(per_s * before_s, 0.0 * uneven)"),
        ("sum(axis=0) * passes / stages", "sum(axis=0) * passes"),
        ("(taken_s * shares).sum(axis=1) / stages", "(taken_s * shares).sum(axis=1)"),
    ),
    *changes_of(
        "costmodel/disaggregated/prefill_pass.py",
        ("np.maximum(k * kernels, launch)", "np.maximum(k, launch) * kernels"),
    ),
    *changes_of(
        "costmodel/disaggregated/closed_loop.py",
        ("middle + rate * before_s > concurrency", "middle > concurrency"),
        ("(held > slots)", "(held > 2.0 * slots)"),
    ),
    *changes_of(
        "costmodel/disaggregated/pairing.py",
        ("able = np.minimum(prefill", "able = np.maximum(prefill"),
        ("prefill.latency_s + transfer + decode.entry_s", "prefill.latency_s + decode.entry_s"),
    ),
    *changes_of(
        "costmodel/disaggregated/kv_transfer.py",
        ("(1.0 - link.hidden_frac) * np.maximum(", "(1.0 - link.hidden_frac) * np.minimum("),
    ),
)

"""Published figures of models, and what Transformers counts of them: the table that the reader is held to."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE, TENTH = 0.5e9, 0.05e9
"""Half of the last digit of a figure that is stated in whole or in tenths of billions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is published of a model."""

    total: float
    active: float
    digit: float
    """Half of the last digit that `active` is stated with."""
    kv: float
    """Cache bytes that a token adds beyond every window, summed by hand."""
    source: str


def _row(total: float, active: float, digit: float, kv: float, source: str) -> Figures:
    return Figures(total=total * 1e9, active=active * 1e9, digit=digit, kv=kv, source=source)


def gqa(layers: int, heads: int, dim: int, size: float = 2) -> float:
    """Keys and values of so many layers that see everything."""
    return layers * 2 * heads * dim * size


def mla(layers: int, size: float = 2) -> float:
    """DeepSeek's latent and rotary key."""
    return layers * (512 + 64) * size


FAMILIES: dict[str, Figures] = {
    "01-ai/Yi-34B": _row(34.4, 34.4, TENTH, gqa(60, 8, 128), "safetensors: 34.4B"),
    "deepseek-ai/DeepSeek-V3": _row(671, 37, WHOLE, mla(61), "model card: 671B, 37B activated"),
    "deepseek-ai/DeepSeek-V3.2": _row(671, 37, 0.5e9, mla(61) + 61 * 128, "report of V3.2: V3.1 with an index"),
    "deepseek-ai/DeepSeek-V4-Flash": _row(
        284, 13, WHOLE, 21 * (512 * 2 + 128) / 4 + 20 * 512 * 2 / 128, "model card: 284B, 13B activated"
    ),
    "deepseek-ai/DeepSeek-V4-Pro": _row(
        1573, 49, WHOLE, 30 * (512 * 2 + 128) / 4 + 31 * 512 * 2 / 128, "model card: 1.6T, 49B activated"
    ),
    "moonshotai/Kimi-K2-Instruct": _row(1040, 32, WHOLE, mla(61), "model card: 1T (1.04T in the report), 32B"),
    "moonshotai/Kimi-K2.5": _row(1040, 32, WHOLE, mla(61), "model card: 1T, 32B activated"),
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": _row(49.1, 3, WHOLE, mla(7), "safetensors: 49.1B; model card: 3B"),
    "Qwen/Qwen3-8B": _row(8.2, 8.2, TENTH, gqa(36, 8, 128), "model card: 8.2B"),
    "Qwen/Qwen3-32B": _row(32.8, 32.8, TENTH, gqa(64, 8, 128), "model card: 32.8B"),
    "Qwen/Qwen3-235B-A22B": _row(235, 22, WHOLE, gqa(94, 4, 128), "model card: 235B, 22B activated"),
    "Qwen/Qwen3-30B-A3B": _row(30.5, 3.3, TENTH, gqa(48, 4, 128), "model card: 30.5B, 3.3B activated"),
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": _row(480, 35, WHOLE, gqa(62, 8, 128), "model card: 480B, 35B activated"),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": _row(80, 3.9, TENTH, gqa(12, 2, 256), "model card: 80B; 3.9B with embeddings"),
    "Qwen/Qwen3-VL-235B-A22B-Instruct": _row(235, 22, WHOLE, gqa(94, 4, 128), "model card: text model of Qwen3-235B"),
    "Qwen/Qwen3.5-397B-A17B": _row(397, 17, WHOLE, gqa(15, 2, 256), "model card: 397B, 17B activated"),
    "Qwen/Qwen3.5-27B": _row(27, 27, WHOLE, gqa(16, 4, 256), "model card: 27B"),
    "zai-org/GLM-4.5": _row(355, 32, WHOLE, gqa(92, 8, 128), "model card: 355B, 32B activated"),
    "zai-org/GLM-4.5-Air": _row(106, 12, WHOLE, gqa(46, 8, 128), "model card: 106B, 12B activated"),
    "zai-org/GLM-4.7-Flash": _row(30, 3, WHOLE, mla(47), "model card: 30B-A3B"),
    "zai-org/GLM-5": _row(744, 40, WHOLE, mla(78) + 78 * 128, "model card: 744B, 40B activated"),
    "zai-org/GLM-5.2": _row(744, 40, 0.8e9, mla(78) + 21 * 128, "as GLM-5, with the index of 21 layers shared"),
    "MiniMaxAI/MiniMax-M1-80k": _row(456, 45.9, TENTH, gqa(10, 8, 128), "model card: 456B, 45.9B activated"),
    "MiniMaxAI/MiniMax-M2.5": _row(229, 10, WHOLE, gqa(62, 8, 128), "safetensors: 229B; model card: 10B activated"),
    "MiniMaxAI/MiniMax-M3": _row(
        428, 23, 0.6e9, gqa(60, 4, 128) + 57 * 128 * 2, "model card: about 428B, about 23B activated"
    ),
    "XiaomiMiMo/MiMo-V2-Flash": _row(309, 15, WHOLE, 9 * 4 * (192 + 128) * 2, "model card: 309B, 15B activated"),
    "stepfun-ai/Step-3.5-Flash": _row(196.8, 11, WHOLE, gqa(12, 8, 128), "model card: 196.81B, 11B activated"),
    "stepfun-ai/step3": _row(316, 38, WHOLE, gqa(61, 1, 256), "model card: 321B with 5B of vision, 38B activated"),
    "openai/gpt-oss-120b": _row(116.8, 5.1, TENTH, gqa(18, 8, 64), "model card, table 1: 116.83B, 5.13B"),
    "openai/gpt-oss-20b": _row(20.9, 3.6, TENTH, gqa(12, 8, 64), "model card, table 1: 20.91B, 3.61B"),
    "meta-llama/Llama-2-7b-hf": _row(6.74, 6.74, TENTH, gqa(32, 32, 128), "safetensors: 6.74B"),
    "meta-llama/Llama-2-70b-hf": _row(69.0, 69.0, TENTH, gqa(80, 8, 128), "safetensors: 69.0B"),
    "meta-llama/Meta-Llama-3.1-8B": _row(8.03, 8.03, TENTH, gqa(32, 8, 128), "safetensors: 8.03B"),
    "meta-llama/Meta-Llama-3.1-70B": _row(70.6, 70.6, TENTH, gqa(80, 8, 128), "safetensors: 70.6B"),
    "meta-llama/Meta-Llama-3.1-405B": _row(405.9, 405.9, WHOLE, gqa(126, 8, 128), "report: 405B"),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": _row(
        107.8, 17, WHOLE, gqa(12, 8, 128), "model card: 109B with 1B of vision, 17B activated"
    ),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": _row(
        400, 17, WHOLE, gqa(12, 8, 128), "model card: 400B, 17B activated"
    ),
    "mistralai/Mistral-7B-v0.1": _row(7.24, 7.24, TENTH, 0, "safetensors: 7.24B; every layer has a window"),
    "mistralai/Mistral-Nemo-Instruct-2407": _row(12.2, 12.2, TENTH, gqa(40, 8, 128), "safetensors: 12.2B"),
    "mistralai/Mistral-Small-24B-Instruct-2501": _row(23.6, 23.6, TENTH, gqa(40, 8, 128), "safetensors: 23.6B"),
    "mistralai/Mistral-Large-Instruct-2411": _row(123, 123, WHOLE, gqa(88, 8, 128), "model card: 123B"),
    "mistralai/Mistral-Large-3-675B-Instruct-2512": _row(673, 39, WHOLE, mla(61), "model card: 673B, 39B of text"),
    "mistralai/Mixtral-8x7B-v0.1": _row(46.7, 12.9, TENTH, gqa(32, 8, 128), "announcement: 46.7B, 12.9B"),
    "mistralai/Mixtral-8x22B-v0.1": _row(141, 39, WHOLE, gqa(56, 8, 128), "announcement: 141B, 39B"),
    "google/gemma-2-27b-it": _row(27.2, 27.2, TENTH, gqa(23, 16, 128), "safetensors: 27.2B"),
    "google/gemma-3-27b-it": _row(27.0, 27.0, TENTH, gqa(10, 16, 128), "report, table 1: 25.6B + 1.4B embedding"),
    "google/gemma-4-26B-A4B": _row(25.2, 3.8, TENTH, gqa(5, 2, 512), "model card: 25.2B, 3.8B activated"),
    "google/gemma-4-31B-it": _row(30.7, 30.7, TENTH, gqa(10, 4, 512), "model card: 30.7B"),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": _row(31.6, 3.2, TENTH, gqa(6, 2, 128), "report: 31.6B, 3.2B"),
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16": _row(120.6, 12, WHOLE, gqa(8, 2, 128), "model card: 120.6B, 12B"),
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": _row(550, 55, WHOLE, gqa(12, 2, 128), "model card: 550B, 55B"),
    "nvidia/Nemotron-H-56B-Base-8K": _row(56.3, 56.3, TENTH, gqa(10, 8, 128), "safetensors: 56.3B"),
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": _row(49.9, 49.9, TENTH, gqa(49, 8, 128), "safetensors: 49.9B"),
    "ibm-granite/granite-4.0-h-small": _row(32, 9, WHOLE, gqa(4, 8, 128), "model card: 32B, 9B activated"),
    "ibm-granite/granite-4.0-h-tiny": _row(7, 1, WHOLE, gqa(4, 4, 128), "model card: 7B, 1B activated"),
    "ibm-granite/granite-4.0-h-micro": _row(3.19, 3.19, TENTH, gqa(4, 8, 64), "safetensors: 3.19B"),
    "ai21labs/AI21-Jamba-Mini-1.7": _row(52, 12, WHOLE, gqa(4, 8, 128), "model card: 52B, 12B activated"),
    "ai21labs/AI21-Jamba-Large-1.7": _row(398, 94, WHOLE, gqa(9, 8, 128), "model card: 398B, 94B activated"),
    "tiiuae/falcon-7b": _row(6.92, 6.92, TENTH, gqa(32, 1, 64), "safetensors without the tied head: 6.92B"),
    "tiiuae/falcon-40b": _row(41.3, 41.3, TENTH, gqa(60, 8, 64), "safetensors without the tied head: 41.3B"),
    "tiiuae/falcon-180B": _row(180, 180, 2e9, gqa(80, 8, 64), "model card: 180B"),
    "tiiuae/Falcon-H1-34B-Instruct": _row(33.6, 33.6, TENTH, gqa(72, 4, 128), "safetensors: 33.6B"),
    "baidu/ERNIE-4.5-300B-A47B-PT": _row(300, 47, WHOLE, gqa(54, 8, 128), "model card: 300B, 47B activated"),
    "baidu/ERNIE-4.5-21B-A3B-PT": _row(21.8, 3, WHOLE, gqa(28, 4, 128), "safetensors: 21.8B; model card: 3B"),
    "baidu/ERNIE-4.5-VL-424B-A47B-PT": _row(424, 47, WHOLE, gqa(54, 8, 128), "model card: 424B, 47B activated"),
    "tencent/Hunyuan-A13B-Instruct": _row(80, 13, WHOLE, gqa(32, 8, 128), "model card: 80B, 13B activated"),
    "tencent/Tencent-Hunyuan-Large": _row(
        389, 52, 0.8e9, gqa(32, 8, 80), "report: 389B, 52B; every other layer's cache"
    ),
    "inclusionAI/Ling-mini-2.0": _row(16.26, 1.43, TENTH, gqa(20, 4, 128), "model card: 16.26B, 1.43B"),
    "inclusionAI/Ling-flash-2.0": _row(103, 6.1, TENTH, gqa(32, 4, 128), "safetensors: 103B; model card: 6.1B"),
    "inclusionAI/Ling-1T": _row(1000, 51, WHOLE, gqa(80, 8, 128), "model card: 1T, about 50B; 51B with the embedding"),
    "inclusionAI/Ling-2.5-1T": _row(1000, 63, 0.7e9, mla(10), "model card: 1T, 63B activated"),
    "inclusionAI/Ling-2.6-flash": _row(104, 7.4, TENTH, mla(4), "model card: 104B, 7.4B activated"),
    "rednote-hilab/dots.llm1.inst": _row(142.8, 14, WHOLE, gqa(62, 32, 128), "report: 142B, 14B activated"),
    "poolside/Laguna-XS.2": _row(33.4, 3, WHOLE, gqa(10, 8, 128), "model card: 33B, 3B activated"),
    "arcee-ai/Trinity-Large-Preview": _row(398, 13, WHOLE, gqa(15, 8, 128), "model card: 398B, 13B activated"),
    "arcee-ai/Trinity-Mini": _row(26.1, 3, WHOLE, gqa(8, 4, 128), "model card: 26B, 3B activated"),
    "databricks/dbrx-instruct": _row(132, 36, WHOLE, gqa(40, 8, 128), "model card: 132B, 36B activated"),
    "xai-org/grok-2": _row(270, 115, WHOLE, gqa(64, 8, 128), "SGLang's recipe: 270B, 115B activated"),
    "Snowflake/snowflake-arctic-instruct": _row(480, 17, WHOLE, gqa(35, 8, 128), "model card: 480B, 17B activated"),
    "allenai/OLMo-2-0325-32B-Instruct": _row(32.2, 32.2, TENTH, gqa(64, 8, 128), "safetensors: 32.2B"),
    "allenai/Olmo-3.1-32B-Instruct": _row(32.2, 32.2, TENTH, gqa(16, 8, 128), "safetensors: 32.2B"),
    "allenai/OLMoE-1B-7B-0125-Instruct": _row(6.92, 1.3, TENTH, gqa(16, 16, 128), "report: 6.9B, 1.3B activated"),
    "microsoft/phi-4": _row(14.7, 14.7, TENTH, gqa(40, 10, 128), "safetensors: 14.7B"),
    "microsoft/Phi-3.5-MoE-instruct": _row(41.9, 6.6, TENTH, gqa(32, 8, 128), "model card: 41.9B, 6.6B activated"),
    "CohereLabs/c4ai-command-r-plus-08-2024": _row(104, 104, WHOLE, gqa(64, 8, 128), "model card: 104B"),
    "CohereLabs/c4ai-command-a-03-2025": _row(111, 111, WHOLE, gqa(16, 8, 128), "model card: 111B"),
    "zai-org/chatglm3-6b": _row(6.24, 6.24, TENTH, gqa(28, 2, 128), "safetensors: 6.24B"),
    "zai-org/glm-4-9b-chat": _row(9.4, 9.4, TENTH, gqa(40, 2, 128), "safetensors: 9.4B"),
    "meituan-longcat/LongCat-Flash-Chat": _row(560, 27, WHOLE, mla(56), "report: 560B, 27B activated on average"),
}
"""Cache sums count 2 bytes a value; of sparse attention also a byte for each value of an index's key (2 where its
keys are kept as others are)."""

TRANSFORMERS: dict[str, int] = {
    "CohereLabs/c4ai-command-a-03-2025": 111_057_580_032,
    "CohereLabs/c4ai-command-r-08-2024": 32_296_476_672,
    "CohereLabs/c4ai-command-r-plus-08-2024": 103_810_674_688,
    "MiniMaxAI/MiniMax-M2.5": 228_689_748_992,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480_154_875_392,
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 79_674_391_296,
    "Qwen/Qwen3-VL-235B-A22B-Instruct": 235_093_634_560,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": 30_532_122_624,
    "Qwen/Qwen3.5-122B-A10B": 122_111_526_912,
    "Qwen/Qwen3.5-27B": 26_895_998_464,
    "Qwen/Qwen3.5-35B-A3B": 34_660_610_688,
    "Qwen/Qwen3.5-397B-A17B": 396_346_350_336,
    "XiaomiMiMo/MiMo-V2-Flash": 308_778_768_832,
    "ai21labs/AI21-Jamba-Large-1.7": 398_555_145_696,
    "ai21labs/AI21-Jamba-Mini-1.7": 51_570_323_328,
    "allenai/OLMo-2-0325-32B-Instruct": 32_234_279_936,
    "allenai/OLMoE-1B-7B-0125-Instruct": 6_919_161_856,
    "allenai/Olmo-3.1-32B-Instruct": 32_233_522_176,
    "arcee-ai/Trinity-Large-Preview": 398_635_286_016,
    "arcee-ai/Trinity-Mini": 26_123_974_400,
    "baidu/ERNIE-4.5-21B-A3B-PT": 21_825_437_888,
    "baidu/ERNIE-4.5-300B-A47B-PT": 299_484_163_264,
    "databricks/dbrx-instruct": 131_596_523_520,
    "deepseek-ai/DeepSeek-R1": 671_026_404_352,
    "deepseek-ai/DeepSeek-V3": 671_026_404_352,
    "deepseek-ai/DeepSeek-V3.2": 671_877_929_216,
    "deepseek-ai/DeepSeek-V4-Flash": 284_332_230_231,
    "deepseek-ai/DeepSeek-V4-Pro": 1_572_997_179_491,
    "google/gemma-2-27b-it": 27_227_128_320,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-3-12b-it": 11_766_034_176,
    "google/gemma-3-27b-it": 27_009_346_304,
    "google/gemma-4-26B-A4B": 25_233_141_760,
    "google/gemma-4-31B-it": 30_697_345_280,
    "ibm-granite/granite-4.0-h-micro": 3_191_396_096,
    "ibm-granite/granite-4.0-h-small": 32_207_337_984,
    "ibm-granite/granite-4.0-h-tiny": 6_939_037_248,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 400_711_848_960,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 107_769_861_120,
    "meta-llama/Meta-Llama-3.1-405B": 405_853_388_800,
    "meta-llama/Meta-Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Meta-Llama-3.1-8B": 8_030_261_248,
    "microsoft/Phi-3.5-MoE-instruct": 41_873_153_344,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "microsoft/phi-4": 14_659_507_200,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-Large-Instruct-2411": 122_610_069_504,
    "mistralai/Mistral-Nemo-Instruct-2407": 12_247_782_400,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23_572_403_200,
    "mistralai/Mixtral-8x22B-v0.1": 140_620_634_112,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "moonshotai/Kimi-K2.5": 1_026_408_209_408,
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": 49_122_675_072,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31_577_937_344,
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": 549_308_968_960,
    "nvidia/Nemotron-H-56B-Base-8K": 56_324_350_464,
    "openai/gpt-oss-120b": 116_829_156_672,
    "openai/gpt-oss-20b": 20_914_757_184,
    "rednote-hilab/dots.llm1.inst": 142_774_373_888,
    "tencent/Hunyuan-A13B-Instruct": 80_393_183_232,
    "tiiuae/Falcon-H1-34B-Instruct": 33_642_221_312,
    "tiiuae/Falcon-H1-7B-Instruct": 7_585_519_712,
    "tiiuae/falcon-180B": 178_557_088_768,
    "tiiuae/falcon-40b": 41_303_293_952,
    "tiiuae/falcon-7b": 6_921_720_704,
    "zai-org/GLM-4.5": 352_797_814_784,
    "zai-org/GLM-4.5-Air": 106_852_245_504,
    "zai-org/GLM-4.7-Flash": 29_943_390_976,
    "zai-org/GLM-5": 743_911_199_232,
    "zai-org/GLM-5.2": 743_377_000_704,
}
"""Parameters of the text model that Transformers 5.23.0 builds of the same config (on the meta device)."""

"""Pages in a real browser: charts are drawn, tables sort and filter, nothing sticks out, nothing is complained of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.comparison import compare
from autotune.report.comparison import comparison_document
from autotune.report.html.comparison import comparison_page
from autotune.report.html.evaluation import evaluation_page
from autotune.report.html.tune import tune_page
from tests.report.browser import Browser
from tests.report.conftest import EVIL, Page, answered
from tests.report.documents import evaluation_document

QUICK = "search.max_num_batched_tokens=[8192]"
SEVERAL_ENGINES = ("qwen3-235b-64xh100", "cluster.gpus=16", 'search.kv_dtype=["fp8"]', "workload.concurrency=64", QUICK)
STUDIES = [("reference-128",), SEVERAL_ENGINES, ("llama-70b-16xh100", QUICK), ("infeasible-example",)]
OTHERS = {
    "evaluation": lambda: evaluation_page(evaluation_document()),
    "comparison": lambda: comparison_page(comparison_document(compare(answered("reference-128").study))),
}
every_study = pytest.mark.parametrize("study", STUDIES, ids=[s[0] for s in STUDIES])
UNDRAWN = """[...document.querySelectorAll('svg')].filter(svg => {
  const box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll('circle, path, rect, line')].filter(mark => {
    const drawn = mark.getBBox();
    return drawn.width > 0 && drawn.height > 0;
  });
  return !(box.width > 0 && box.height > 0 && marks.length > 0);
}).map(svg => svg.outerHTML.slice(0, 200))"""
OUTSIDE = """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
  const [, , width, height] = svg.getAttribute('viewBox').split(' ').map(Number);
  return [...svg.children].filter(mark => {
    const b = mark.getBBox();
    return b.x < -2 || b.y < -2 || b.x + b.width > width + 2 || b.y + b.height > height + 2;
  }).map(mark => `${svg.getAttribute('aria-label').slice(0, 40)}: ${mark.outerHTML.slice(0, 120)}`);
})"""
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = colour => rgb(colour).map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/rgba\\(0, 0, 0, 0\\)|transparent/.test(colour)) return colour;
    }
    return 'white';
  };
  return [...document.querySelectorAll('p, th, td, dt, dd, li, a, figcaption, small, code, h1, h2, svg text')]
    .filter(e => e.textContent.trim() && e.getClientRects().length)
    .map(e => {
      const style = getComputedStyle(e);
      const ink = e instanceof SVGElement ? style.fill : style.color;
      const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), `${e.tagName}.${e.getAttribute('class')}: ${e.textContent.slice(0, 40)}`];
    }).filter(([ratio]) => ratio < 4.5);
})()"""
COLUMN = """(() => {
  const table = document.getElementById('ranked');
  const heading = [...table.tHead.rows[0].cells].findIndex(th => th.textContent.startsWith('%s'));
  return {
    sort: table.tHead.rows[0].cells[heading].getAttribute('aria-sort'),
    values: [...table.tBodies[0].rows].map(row => row.cells[heading].dataset.by),
    sorted: [...table.tHead.rows[0].cells].filter(th => th.hasAttribute('aria-sort')).length,
  };
})()"""
BUTTON = "[...document.querySelectorAll('#ranked thead button')].find(b => b.textContent.startsWith('%s'))"


@every_study
def test_charts_are_drawn_and_nothing_is_complained_of(tab: Browser, page: Page, study: tuple[str, ...]) -> None:
    """Every picture has marks with a size, inside its frame; the console stays empty; only the file is read."""
    tab.open(page(*study), width=1280)
    assert tab.value("document.querySelectorAll('svg[role=img]').length") >= 5
    assert tab.value(UNDRAWN) == []
    assert tab.value(OUTSIDE) == []
    assert tab.problems == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


@every_study
@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_nothing_sticks_out_sideways(tab: Browser, page: Page, study: tuple[str, ...], width: int) -> None:
    """The page is no wider than its window, on a desk, a tablet and a phone; wide tables scroll by themselves."""
    tab.open(page(*study), width=width)
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.value("window.innerWidth") == width


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tab: Browser, page: Page, dark: bool) -> None:
    """Light and dark have different grounds, and all text a contrast of 4.5 at least (WCAG AA)."""
    tab.open(page("reference-128"), width=1280, dark=dark)
    ground = tab.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground[:3]) < 60) is dark
    assert tab.value(CONTRAST) == []


def test_paper_is_light_and_without_controls(tab: Browser, page: Page) -> None:
    """Printed from a dark screen, the page is black on white, its tables are whole and its controls are gone."""
    tab.open(page("reference-128"), width=1040, dark=True)
    tab.media(dark=True, kind="print")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.value("getComputedStyle(document.querySelector('.tools')).display") == "none"
    assert tab.value("getComputedStyle(document.querySelector('.tall')).overflowY") == "visible"
    assert tab.pdf().startswith(b"%PDF")
    tab.media()


def numbers(values: list[str]) -> list[float]:
    return [float(v) for v in values]


def test_a_click_sorts_and_another_turns_it_round(tab: Browser, page: Page) -> None:
    """Latency sorts upwards first, throughput downwards; one heading at a time says that it is sorted."""
    tab.open(page("reference-128"), width=1280)
    assert tab.value(COLUMN % "Rank")["sort"] == "ascending"
    tab.value(f"{BUTTON % 'TPOT'}.click()")
    column = tab.value(COLUMN % "TPOT")
    assert (column["sort"], column["sorted"]) == ("ascending", 1)
    assert numbers(column["values"]) == sorted(numbers(column["values"]))
    tab.value(f"{BUTTON % 'TPOT'}.click()")
    column = tab.value(COLUMN % "TPOT")
    assert column["sort"] == "descending"
    assert numbers(column["values"]) == sorted(numbers(column["values"]), reverse=True)
    tab.value(f"{BUTTON % 'Total throughput'}.click()")
    column = tab.value(COLUMN % "Total throughput")
    assert column["sort"] == "descending"
    assert numbers(column["values"]) == sorted(numbers(column["values"]), reverse=True)


@pytest.mark.parametrize(("key", "code"), [("Enter", 13), (" ", 32)])
def test_the_keyboard_sorts(tab: Browser, page: Page, key: str, code: int) -> None:
    """A heading that has the focus sorts by Enter and by the space bar."""
    tab.open(page("reference-128"), width=1280)
    tab.value(f"{BUTTON % 'TTFT'}.focus()")
    tab.press(key, code)
    column = tab.value(COLUMN % "TTFT")
    assert column["sort"] == "ascending"
    assert numbers(column["values"]) == sorted(numbers(column["values"]))


def test_plans_without_a_rank_go_last_either_way(tab: Browser, page: Page) -> None:
    """The baseline breaks a limit and has no rank: sorting by rank leaves it at the end in both directions."""
    tab.open(page("reference-128"), width=1280)
    for _ in range(2):
        tab.value(f"{BUTTON % 'Rank'}.click()")
        assert tab.value("document.querySelector('#ranked tbody').lastElementChild.className") == "base"


def test_the_filter_leaves_what_holds_every_word(tab: Browser, page: Page) -> None:
    """Words narrow the table, the engine narrows it further, and the count says what is left."""
    tab.open(page(*SEVERAL_ENGINES), width=1280)

    def typed(selector: str, script: str) -> list[str]:
        tab.value(
            f"(e => {{ {script}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            f"(document.querySelector('.tools {selector}'))"
        )
        shown: list[str] = tab.value(
            "[...document.querySelectorAll('#ranked tbody tr:not([hidden])')].map(r => r.dataset.plan)"
        )
        return shown

    narrowed = typed("input", "e.value = 'ep8 pp2'")
    assert narrowed
    assert all("EP8" in plan and "PP2" in plan for plan in narrowed)
    engines = {plan.split(":")[0] for plan in narrowed}
    assert len(engines) > 1
    last = sorted(engines)[-1]
    one = typed("select", f"e.value = '{last}'")
    assert one == [plan for plan in narrowed if plan.startswith(f"{last}:")]
    assert tab.value("document.querySelector('.tools output').textContent").startswith(f"{len(one)} of ")
    assert typed("input", "e.value = 'no such plan'") == []


def test_pointing_at_a_mark_says_what_it_is(tab: Browser, page: Page) -> None:
    """The first plan's mark answers with its name and figures, and its row in the table lights up."""
    tab.open(page("reference-128"), width=1280)
    place = tab.value(
        "(e => { e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })"
        "(document.querySelector('#tradeoff svg .mark.first[data-tip]'))"
    )
    tab.point(*place)
    said = tab.value("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")
    assert said.startswith("rank 1: ")
    assert "TPOT" in said
    assert tab.value("document.querySelectorAll('#ranked tr.first.lit').length") == 1


def test_a_name_never_runs(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a study and a model are called, it is shown and not run."""
    result = answered("reference-128")
    study = replace(result.study, name=EVIL, arch=replace(result.study.arch, name=EVIL))
    file = tmp_path_factory.mktemp("evil") / "page.html"
    file.write_text(tune_page(replace(result, study=study)), encoding="utf-8")
    tab.open(file, width=1280)
    assert tab.value("typeof window.hacked") == "undefined"
    assert tab.value("document.querySelector('h1').textContent") == EVIL
    assert tab.value("document.querySelectorAll('img').length") == 0
    assert tab.problems == []
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_policy_stops_what_would_get_in(tab: Browser, page: Page) -> None:
    """Were markup to slip through all the same, its handler would not run: the policy is in force."""
    tab.open(page("reference-128"), width=1280)
    tab.value("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.hacked=1\">')")
    tab.value("new Promise(done => setTimeout(done, 50))")
    assert tab.value("typeof window.hacked") == "undefined"
    assert tab.problems


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["evaluation", "comparison"])
def test_the_other_pages_hold_the_same_rules(
    tab: Browser, tmp_path_factory: pytest.TempPathFactory, kind: str, width: int
) -> None:
    """An evaluation and a comparison draw their charts, keep within the window, and are readable in the dark."""
    file = tmp_path_factory.mktemp(kind) / "page.html"
    file.write_text(OTHERS[kind](), encoding="utf-8")
    tab.open(file, width=width, dark=True)
    assert tab.value("document.querySelectorAll('svg[role=img]').length") >= 1
    assert tab.value(UNDRAWN) == []
    assert tab.value(OUTSIDE) == []
    assert tab.value(CONTRAST) == []
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.problems == []

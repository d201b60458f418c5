"""Reports: the page is complete, safe and readable anywhere."""

from __future__ import annotations

import html.parser
import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")

from portablenn.tables import Preprocessor, Target  # noqa: E402
from portablenn.tables.cells import CellFormat  # noqa: E402
from portablenn.tables.columns import CategoricalColumn, NumericColumn  # noqa: E402

X = np.random.default_rng(0).uniform(-1, 1, size=(80, 2)).astype("f4")


@pytest.fixture(autouse=True)
def _closed() -> Any:
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    yield
    plt.close("all")


def _model(hostile: bool = False) -> Any:
    pytest.importorskip("pyarrow")
    pytest.importorskip("sklearn")
    name = "<script>alert(1)</script> & co" if hostile else "plan"
    value = '"><img src=x onerror=alert(1)>' if hostile else "gold"
    table = {"age": X[:, 0].tolist() * 3, "city": ["Oslo", "Rome", value] * 80, name: [value, "basic"] * 120}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("portablenn.tables.model.MIN_ROWS_TO_CHOOSE", 10**9)  # the network, not a linear model
        model = pnn.TableModel.train(table, name, preset="fast", epochs=2)
    model.results["command"] = "portablenn train t.csv --target 'a & b'"
    return model


VOID = {"meta", "link", "br", "img", "use", "path", "stop"}


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_complete_and_requires_no_other_file(tmp_path: Path) -> None:
    model = _model()
    pnn.report.write(tmp_path / "r.html", model)
    text = (tmp_path / "r.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert not [
        a for _, a in page.seen for k in ("src", "href", "xlink:href") if not a.get(k, "#").startswith(("#", "data:"))
    ]
    assert "script" not in {tag for tag, _ in page.seen}
    assert len([tag for tag, _ in page.seen if tag == "svg"]) == 3
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= set(ids)
    for words in ("Classification of plan", "portablenn train t.csv --target 'a & b'", "accuracy", "dense_3", "numpy"):
        assert words in page.words
    assert "prefers-color-scheme: dark" in text
    assert set(re.findall(r"\w*currentColor|#010203", text)) == {"currentColor"}
    assert pnn.report.page(model) == text


def test_names_of_any_kind_are_shown_unchanged() -> None:
    pytest.importorskip("pyarrow")
    odd = ["a $5$ b", r"x_{y}$\\frac$", "東京", "a very long name of a class, indeed longer than most would think of"]
    table = {odd[0]: X[:, 0].tolist(), "c": X[:, 1].tolist(), "y": [odd[i % 4] for i in range(80)]}
    page = _Page()
    page.feed(pnn.report.page(pnn.TableModel.train(table, "y", epochs=1)))
    for name in odd:
        assert name in page.words
    assert odd[0] in page.words[page.words.index("Importance of the columns") :]


def test_names_in_a_table_never_become_code_of_the_page() -> None:
    page = _Page()
    text = pnn.report.page(_model(hostile=True))
    page.feed(text)
    assert "script" not in {tag for tag, _ in page.seen}
    assert "img" not in {tag for tag, _ in page.seen}
    assert not [a for _, a in page.seen for k in a if k.startswith("on")]
    assert "<script>alert(1)</script> & co" in page.words


CATEGORIES = CategoricalColumn("city", ("Oslo", "Rome", "Bern", "Lima", "Kyiv", "Bonn", "Pune"), False, infrequent=1234)
COLUMNS = (
    NumericColumn("age", 1234.5678, 0.12345, missing=True),
    NumericColumn("day", 19782.6, 30.0, False, cells=CellFormat(date="%Y-%m-%d")),
    CATEGORIES,
)


def _untrained(target: Target, **results: Any) -> Any:
    inputs = sum(len(column.input_names) for column in COLUMNS)
    network = pnn.mlp([inputs, 3, len(target.classes or "1")], loss="squared_error", backend="numpy")
    return pnn.TableModel(Preprocessor(COLUMNS, target), network, results)


def _words(model: Any) -> str:
    page = _Page()
    page.feed(pnn.report.page(model))
    return page.words


def test_columns_are_described_by_their_encoding() -> None:
    words = _words(_untrained(Target("y", None), left_out={"id": "all cells are missing"}))
    for text in (
        "scaled number, mean 1,235, standard deviation 0.1235; missing values marked",
        "scaled date, mean 2024-02-29, standard deviation 30 days",
        "one-hot, 7 values: “Oslo”, “Rome”, “Bern”, “Lima”, “Kyiv”, “Bonn”, …; 1,234 less frequent values are not distinguished",
        "left out: all cells are missing",
    ):
        assert text in words
    assert "standard deviation 30 days;" not in words


def test_a_model_without_results_has_a_page() -> None:
    words = _words(_untrained(Target("y", None)))
    assert "Regression of y" in words
    assert "TableModel.train(…)" in words
    for section in ("Metrics", "Training", "Importance of the columns"):
        assert section not in words


def test_metrics_stand_next_to_those_of_a_constant_prediction() -> None:
    rows = {"train": 1600, "validation": 200, "test": 2000}
    results = {
        "metrics": {"r2": 0.5, "mean_absolute_error": 1234.5},
        "baseline": {"r2": -0.25},
        "linear": {"r2": 0.25},
        "measured_on": "test",
        "rows": rows,
    }
    words = _words(_untrained(Target("y", None), **results, table="t.csv", predicted=[[1.0, 2.0], [3.0, 4.0]]))
    assert "Rows of t.csv: 1,600 train, 200 validation, 2,000 test; 37 parameters." in words
    assert "on the test rowsmodellinear modelconstant predictionR²0.50.25-0.25mean absolute error1,234" in words
    assert "True and predicted values of 2 of the 2,000 test rows" in words
    whole = {**results, "rows": {"test": 2}}
    assert "True and predicted values of the 2 test rows" in _words(
        _untrained(Target("y", None), **whole, predicted=[[1.0, 2.0], [3.0, 4.0]])
    )


def test_the_history_says_how_the_training_ended() -> None:
    history = {"loss": [3.0, 2.0, 1.0]}
    words = _words(_untrained(Target("y", None), history=history, ended="no better loss for 2 epochs", best_epoch=1))
    assert "3 epochs; no better loss for 2 epochs; the weights are those of epoch 1." in words
    assert "3 epochs." in _words(_untrained(Target("y", None), history=history))


def test_at_most_20_importances_are_shown() -> None:
    many = {f"c{i}": 1.0 / (i + 1) for i in range(21)}
    words = _words(_untrained(Target("y", None), importances=many))
    assert "the decrease in R² when the cells of a column are shuffled" in words
    assert "The 20 most important of 21 columns." in words
    assert "c19" in words
    assert "c20" not in words
    del many["c20"]
    words = _words(_untrained(Target("y", ("a", "b")), importances=many))
    assert "the decrease in accuracy" in words
    assert "most important of" not in words


def test_the_confusion_matrix_shows_the_40_most_frequent_classes() -> None:
    classes = tuple(f"class {i}" for i in range(41))
    counts = np.diag([9] * 7 + [0] + [2] * 33) + np.eye(41, k=1, dtype=int)
    counts[8, 7] = 5  # class 7 is predicted often, and rare
    results = {
        "metrics": {"accuracy": 0.5},
        "baseline": {"accuracy": 0.1},
        "measured_on": "test",
        "rows": {"test": 200},
    }
    model = _untrained(Target("y", classes), **results, confusion=counts.tolist())
    words = _words(model)
    assert "; 41 classes;" in words
    assert "true classes down, predicted classes across. The 40 most frequent of 41 classes." in words
    assert "<th>class 7</th>" not in pnn.report.page(model)
    assert "class 40" in words
    assert "color-mix(in srgb, var(--good) 72%, transparent)" in pnn.report.page(model)  # 80 % of 9 / 10
    text = pnn.report.page(_untrained(Target("y", ("a", "b")), **results, confusion=[[3, 0], [0, 0]]))
    assert "most frequent of" not in text
    assert "nan%" not in text


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(
    BROWSER is None or not importlib.util.find_spec("playwright"), reason="no browser, or no playwright"
)
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_browser_shows_the_page_without_errors(width: int, scheme: Any, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    pnn.report.write(tmp_path / "r.html", _model())
    said: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.goto((tmp_path / "r.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width  # no horizontal scrolling
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        shades = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
        assert (shades[0] > shades[1]) == (scheme == "dark")
        letters = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        assert letters == ink
        browser.close()
    assert said == []

"""A report says the same in its three files, is safe to open anywhere and warns where it must."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from sartm.classes import FMB, MFNET, PST900, Classes
from sartm.cli.main import main
from sartm.colours import display_palette
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix
from sartm.evaluation.protocols import PROTOCOLS
from sartm.evaluation.report.charts import Shares, class_shares
from sartm.evaluation.report.files import to_json, to_markdown, write_report
from sartm.evaluation.report.page import to_html
from sartm.evaluation.report.pictures import draw_pair, draw_sheet, write_sheet
from sartm.evaluation.report.published import Comparison, compare, load_published
from sartm.evaluation.report.run import write_run_page
from sartm.evaluation.report.scores import build_report
from sartm.terminal import clean_text

HOSTILE = "</style><script src=https://evil.example/x.js>|`*_[x](y)\n# \"'&\x00\u202e\udc80"
CONTROL = re.compile(r"[\x00-\x1f\ud800-\udfff]")
"""What a class table refuses in names."""
KEYS = (
    *("split", "pairs", "modality", "label_size", "means", "pixel_accuracy", "classes", "subsets"),
    *("confusion", "contaminated", "selected_on", "model", "data", "command", "versions"),
)


def a_report(classes=MFNET, pairs=6, **changes):
    """A report of random maps in which the last class does not occur."""
    random = np.random.default_rng(0)
    counts = random.integers(0, 50, (pairs, len(classes), len(classes)))
    counts += 400 * np.eye(len(classes), dtype=int)
    counts[:, -1] = counts[:, :, -1] = 0
    settings = {
        "split": "val",
        "modality": "both",
        "label_sizes": [(480, 640)],
        "model": "mini",
        "data": "drawn",
        "command": "sartm evaluate --model mini",
        "subsets": {"day": [0, 1], "night": [2]},
        "samples": 20,
    }
    return build_report(counts, classes, **(settings | changes))


def a_picture(name="one", classes=MFNET, rgb=True):
    truth = np.zeros((60, 480), np.uint8)
    truth[10:30, 10:90], truth[:4] = 1, classes.ignore
    prediction = np.roll(truth, 6, axis=1) % classes.ignore
    photo = np.full((60, 480, 3), (200, 40, 90), np.uint8)
    return draw_pair(
        name, "worst", truth, prediction, classes, photo if rgb else None, photo[..., 0]
    )


class Page(HTMLParser):
    """Collects what a browser would: open elements, links, text, tags."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.stack, self.seen, self.values, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        self.values += [value for _, value in attributes if value]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        self.values += [value for _, value in attributes if value]

    def handle_endtag(self, tag):
        assert self.stack
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


def test_json_has_the_documented_keys_and_null_where_undefined():
    values = json.loads(to_json(a_report()))
    assert list(values)[: len(KEYS)] == [*KEYS]
    assert set(values["means"]) == {"mfnet-9", "mfnet-8", "present"}
    assert set(values["means"]["mfnet-9"]) == {"miou", "macc", "counted"}
    assert values["means"]["mfnet-9"]["counted"] == 8
    bump = values["classes"][8]
    assert bump == {"id": 8, "name": "bump", "iou": None, "acc": None, "f1": None, "pixels": 0}
    assert values["subsets"]["night"]["pairs"] == 1
    assert values["selected_on"] is None
    assert values["label_size"] == "480x640"


def test_numbers_are_those_of_the_summed_counts():
    report = a_report()
    matrix = ConfusionMatrix(9, np.array(report.confusion))
    for score, iou, pixels in zip(report.classes, matrix.iou(), matrix.pixels(), strict=True):
        assert score.pixels == pixels
        assert score.iou is None or abs(score.iou - 100 * iou) < 1e-3
    low, high = report.intervals["mfnet-9"]
    assert low < report.means["mfnet-9"]["miou"] < high
    day = report.subsets["day"].classes
    assert sum(c.pixels for c in day) < sum(c.pixels for c in report.classes)


def test_robustness_rows_survive_numpy_and_nan():
    rows = [{"condition": "blur", "severity": np.int64(2), "miou": np.float32(50), "macc": np.nan}]
    values = json.loads(to_json(a_report(robustness=rows)))
    assert values["robustness"] == [
        {"condition": "blur", "severity": 2, "miou": 50.0, "macc": None}
    ]


def test_robustness_has_a_row_per_condition_and_one_chart_of_all():
    def rows(name, scores, mean, worst):
        found = [(str(step), {"severity": step, "miou": miou}) for step, miou in scores]
        found += [("mean", {"severity": "mean", "miou": mean, "drop": 40 - mean})]
        found += [("worst", {"severity": "worst", "miou": worst, "drop": 40 - worst})]
        return [{"condition": name, "protocol": "mfnet-9", **row} for _, row in found]

    conditions = [
        {"condition": "clean", "severity": None, "miou": 40.0, "drop": 0.0},
        {"condition": "rgb-missing", "severity": None, "miou": 11.5, "drop": 28.5},
        *rows("rgb-fog", [(1, 38.0), (2, 31.0)], 34.5, 31.0),
        *rows("misregistered", [(5, 39.0), (20, 21.0)], 30.0, 21.0),
    ]
    report = a_report(robustness=conditions)
    lines = to_markdown(report).splitlines()
    assert "| condition | mean | worst | lost | 1 | 2 |" in lines
    assert "| rgb-missing | 11.50 | 11.50 | 28.50 |  |  |" in lines
    assert "| rgb-fog | 34.50 | 31.00 | 5.50 | 38.00 | 31.00 |" in lines
    assert "| misregistered (5, 20) | 30.00 | 21.00 | 10.00 | 39.00 | 21.00 |" in lines
    labels = [svg["aria-label"] for svg in Page(to_html(report)).named("svg")]
    (chart,) = [label for label in labels if "rgb-missing" in label]
    assert "undamaged 40.0" in chart
    assert "misregistered 30.00, worst 21.00" in chart
    assert any("38.0 at 1, 31.0 at 2" in label for label in labels)
    assert ">40</text>" in to_html(report)  # the axis ends near the best score, not at 100


def test_a_split_without_pairs_is_refused():
    with pytest.raises(InputError, match="no labelled pair"):
        a_report(pairs=0)


INJECTIONS = [
    HOSTILE,
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "' onload='alert(1)",
    "</title></text></svg><img src=x onerror=alert(1)>",
    "fish & chips &lt;b&gt; {{ 7 * 7 }} {% raw %}",
]
IDS = ["everything", "script", "double quote", "single quote", "closing tags", "entities"]


def full_page(text, classes):
    """report.html in which `text` stands wherever something comes from outside."""
    rows = [
        {"condition": f"{text}{name}", "severity": step, "miou": 60.0 - 9 * index, "drop": 1.0}
        for name in "ab"
        for index, step in enumerate((1, 2, 3, "mean", "worst"))
    ]
    report = a_report(
        classes,
        split="test",
        model=text,
        data=text,
        command=text,
        contaminated=[text],
        selected_on=text,
        subsets={text: [0]},
        robustness=[{"condition": "clean", "severity": None, "miou": 70.0}, *rows],
    )
    pictures = [a_picture(text, classes), a_picture(text, classes, rgb=False)]
    return to_html(report, pictures, compare(report, load_published()), 9 * ((1, 2, 3),))


def run_page(text, folder):
    """The page of a run in which `text` names the run, its curves and its classes."""
    folder.mkdir()
    lines = [
        {"step": step, "seconds": 1.0, text: 1 / step, "loss": math.nan if step == 2 else 1.0,
         "val": {"present": {"miou": 10.0 * step}, text: {"miou": None}}, "iou": {text: None}}
        for step in (1, 2, 3)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"cut')
    write_sheet(folder, 3, draw_sheet([a_picture(), a_picture(rgb=False)]))
    return write_run_page(folder, text, {text: [text]}).read_text("utf-8")


def require_harmless(text):
    """The page, in which nothing can run or be fetched and every element is closed."""
    page = Page(text)
    assert page.stack == []
    assert not {"script", "link", "iframe", "object", "a", "form"} & {tag for tag, _ in page.seen}
    assert not any(name.startswith("on") for _, values in page.seen for name in values)
    sources = [values["src"] for _, values in page.seen if "src" in values]
    assert all(source.startswith("data:image/") for source in sources)
    for chart in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(chart)  # a chart that is no XML would be shown nowhere else
    text.encode("utf-8")
    return page


@pytest.mark.parametrize("text", INJECTIONS, ids=IDS)
def test_what_comes_from_outside_is_text_on_every_page_and_chart(text, tmp_path):
    classes = Classes(("a", CONTROL.sub("", text), "c"))
    shares = [Shares(text, 3, ((50.0, 2), (0.0, 0), (50.0, 3)))]
    pages = {
        "report": full_page(text, classes),
        "run": run_page(text, tmp_path / "run"),
        "class shares": class_shares(text, classes, shares),
    }
    # What a reader sees: unreadable characters replaced, long names cut to the chart's width.
    shown = " ".join(clean_text(text).split())
    for name, content in pages.items():
        page = require_harmless(content)
        words = " ".join("".join(page.words).split())
        assert words.count(shown) >= (2 if name == "class shares" else 3), name
        if name != "class shares":
            assert any(shown in " ".join(values.get("aria-label", "").split())
                       for values in page.named("svg")), name  # fmt: skip
        assert "\x00" not in content
        assert "\u202e" not in content
    assert len(Page(pages["report"]).named("svg")) == 1 + 1 + 2  # bars, conditions, each
    assert len(Page(pages["run"]).named("svg")) == 3


@pytest.mark.parametrize("classes", [MFNET, FMB], ids=len)
def test_a_page_is_one_file_without_outside_resources(classes, tmp_path):
    for text in (full_page("plain", classes), run_page("plain", tmp_path / "run")):
        require_harmless(text)
        assert "data:image/" in text
        style = text[text.index("<style>") : text.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style
        assert "default-src 'none'" in text
        assert "{{" not in text
        assert "{%" not in text


def test_scores_of_a_data_set_with_markup_in_its_names_make_harmless_files(tmp_path):
    """The whole way from dataset.toml, file names and folders to the three files of a report."""
    bold = "<b onclick='x'>&amp;\"bold\""
    root = tmp_path / bold
    names = [f"<i>{index}&'" for index in range(3)]
    for index, name in enumerate(names):
        for kind in ("rgb", "thermal", "label"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            image = np.full((8, 8), index, np.uint8)
            cv2.imwrite(str(root / kind / f"{name}.png"), image)
    (root / "val.txt").write_text("\n".join(names))
    classes = json.dumps(["rest", "<script>alert(1)</script>", 'a "quoted" & cut name'])
    (root / "dataset.toml").write_text(
        f"name = {json.dumps(bold)}\nclasses = {classes}\n[files]\nrgb = 'rgb/{{name}}.png'\n"
        f"thermal = 'thermal/{{name}}.png'\nlabel = 'label/{{name}}.png'\n"
        f"[splits]\nval = 'val.txt'\n[subsets]\n{json.dumps(bold)} = '0'\n"
    )
    maps, out = root / "label", tmp_path / "out"
    assert main(["score", "--predictions", str(maps), "--data", str(root), "--out", str(out)]) == 0
    page = require_harmless((out / "report.html").read_text("utf-8"))
    words = "".join(page.words)
    for text in (bold, "<script>alert(1)</script>", 'a "quoted" & cut name', str(maps)):
        assert text in words
    markdown = (out / "report.md").read_text("utf-8").split("## Command")[0]
    assert not re.search(r"<(?!0\.1)", markdown)
    assert json.loads((out / "report.json").read_text())["data"] == bold


def test_page_says_in_words_what_its_pictures_show():
    page = Page(to_html(a_report(), [a_picture()], palette=MFNET.palette))
    assert all(image["alt"] for image in page.named("img"))
    assert any("prediction for one: unlabeled" in image["alt"] for image in page.named("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.named("svg"))
    assert all(header.get("scope") in {"col", "row"} for header in page.named("th"))
    assert page.named("html")[0]["lang"]
    assert any(meta.get("name") == "viewport" for meta in page.named("meta"))


def test_every_table_of_the_page_scrolls_in_its_own_box():
    text = to_html(a_report())
    assert text.count("<table") == len(re.findall(r'<div class="scroll"[^>]*><table', text)) > 3


def test_pictures_are_small_and_label_colours_exact():
    text = to_html(a_report(), [a_picture()])
    images = [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        for data in re.findall(r"data:image/\w+;base64,([^\"]+)", text)
    ]
    assert [image.shape[:2] for image in images] == [(40, 320)] * 5
    rgb, _, truth = (image[..., ::-1].astype(int) for image in images[:3])
    assert np.abs(rgb - (200, 40, 90)).max() < 12
    shown = display_palette(MFNET)
    known = {shown[0], shown[1], (128, 128, 128)}
    assert {tuple(colour) for colour in truth.reshape(-1, 3).tolist()} == known


def test_error_map_is_bright_exactly_where_prediction_and_truth_differ():
    truth, prediction = np.zeros((2, 4, 6), np.uint8)
    prediction[1, 2], truth[0, :], prediction[0, 0] = 3, MFNET.ignore, 5
    picture = draw_pair("x", "best", truth, prediction, MFNET)
    bright = picture.images["error"].max(axis=2) > 200
    assert np.argwhere(bright).tolist() == [[1, 2]]
    assert "5.56 % of the pixels wrong" in picture.caption


def test_a_missing_modality_is_said_on_the_page():
    assert "no RGB" in to_html(a_report(), [a_picture(rgb=False)])


def test_training_pairs_and_selection_on_the_split_are_warned_of_everywhere():
    report = a_report(contaminated=["00001D", "00002N"], selected_on="val")
    for text in (to_html(report), to_markdown(report)):
        assert "2 of the 6 scored pairs were in the model" in text
        assert "00002N" in text
        assert "chosen on this split (val)" in text
    clean = a_report(selected_on="train")
    for text in (to_html(clean), to_markdown(clean)):
        assert "Warning" not in text
        assert "chosen on split train" in text
    assert "not recorded" in to_markdown(a_report())


def test_markdown_tables_keep_their_columns_whatever_the_names():
    report = a_report(
        Classes(("a", CONTROL.sub("", HOSTILE), "c")), model=HOSTILE, command="a\n```\nb"
    )
    text = to_markdown(report)
    assert "<script" not in text.split("## Command")[0]
    assert "\n````sh\n" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1
    assert "color_cone" in to_markdown(a_report())


def test_same_numbers_in_all_three_files(tmp_path):
    report = a_report()
    write_report(report, tmp_path / "new" / "report", [a_picture()], palette=MFNET.palette)
    files = sorted(path.name for path in (tmp_path / "new" / "report").iterdir())
    assert files == ["report.html", "report.json", "report.md"]
    texts = [(tmp_path / "new" / "report" / name).read_text("utf-8") for name in files]
    values = json.loads(texts[1])
    for score in values["classes"][:-1]:
        assert all(f"{score['iou']:.2f}" in text for text in (texts[0], texts[2]))


def test_a_second_report_replaces_the_first_and_leaves_nothing_else(tmp_path):
    write_report(a_report(model="first"), tmp_path)
    write_report(a_report(model="second"), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["model"] == "second"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_written_is_the_users_to_change(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"taken.*--out"):
        write_report(a_report(), tmp_path / "taken")


def test_published_figures_are_complete_and_of_known_protocols():
    published = load_published()
    tables = {"mfnet": MFNET, "pst900": PST900, "fmb": FMB}
    assert len(published.rows) > 100
    for row in published.rows:
        assert row.protocol is None or row.protocol.startswith(row.data)
        assert row.protocol is None or row.protocol in PROTOCOLS
        assert row.protocol is not None or row.note
        assert row.source
        assert 0 < row.miou < 100
        assert set(row.classes or {}) <= set(tables[row.data].names)
    figures = [(row.system, row.backbone, row.data, row.modality, row.miou, row.source)
               for row in published.rows]  # fmt: skip
    assert len(set(figures)) == len(figures)


def test_published_class_rows_average_to_the_published_mean():
    rows = [row for row in load_published().rows if row.data == "pst900" and row.classes]
    assert len(rows) == 2
    for row in rows:
        assert abs(np.mean(list(row.classes.values())) - row.miou) < 0.02


@pytest.mark.parametrize(("classes", "pairs"), [(MFNET, 393), (FMB, 280), (PST900, 288)])
def test_comparison_shows_only_figures_of_the_same_protocol(classes, pairs):
    published = load_published()
    report = a_report(classes, pairs=pairs, split="test", subsets={})
    comparison = compare(report, published)
    assert comparison.same_images
    for protocol, rows in comparison.rows.items():
        assert protocol in report.means
        assert {row.protocol for row in rows} == {protocol}
        assert [row.miou for row in rows] == sorted((row.miou for row in rows), reverse=True)
    data = next(iter(comparison.rows.values()))[0].data
    shown = sum(map(len, comparison.rows.values()))
    assert shown + comparison.left_out == sum(row.data == data for row in published.rows)


def test_comparison_with_other_images_is_called_not_comparable():
    report = a_report(split="test")
    comparison = compare(report, load_published())
    assert not comparison.same_images
    for text in (to_html(report, (), comparison), to_markdown(report, comparison)):
        assert "other images, so not comparable" in text
        assert "SpatialSeg" in text


def test_own_classes_have_nothing_to_be_compared_with():
    report = a_report(Classes(("rest", "cat", "dog")))
    comparison = compare(report, load_published())
    assert comparison == Comparison({}, True, 0, ())
    assert "published" not in to_html(report, (), comparison).lower()


def test_intervals_are_left_out_where_there_is_one_pair():
    report = a_report(pairs=1, subsets={})
    assert report.intervals == {}
    assert "intervals" not in json.loads(to_json(report))
    assert report.means["present"]["miou"] is not None

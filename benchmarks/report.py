# SPDX-License-Identifier: MIT
"""Tables (text, Markdown, CSV) from the JSON of a run."""

import csv
import io
import json
import os

from engines import ENGINES, OURS

SHORT = {
    "torch channels_last": "ch_last",
    "torch.compile": "compile",
    "onnxruntime": "ort",
    "openvino default": "ov default",
}
ORDER = ("inference", "scaling", "training", "coldstart", "memory", "spinning")
MIB = 1 << 20
BUSY = 0.3  # load average per core at which others were at work


def short(engine):
    return SHORT.get(engine, engine)


def engines_of(rows):
    """Of all rows, in the usual order."""
    found = {engine for row in rows for engine in row["engines"]}
    return [engine for engine in ENGINES if engine in found]


def size_text(row):
    height, width = row["height"], row["width"]
    return str(height) if height == width else f"{height}x{width}"


def shape_cells(row):
    return [row["model"], size_text(row), str(row["batch"]), str(row["threads"])]


SHAPE_HEADER = ["model", "size", "batch", "threads"]


def cell(entry, key, text):
    """A number of an engine's entry, or why there is none."""
    if entry is None:
        return "-"
    if "error" in entry:
        return "ERROR"
    if "unavailable" in entry:
        return "n/a"
    return text(entry[key]) if key in entry else "-"


def ratio_text(ratio):
    return f"{ratio[1]:.2f} ({ratio[0]:.2f}-{ratio[2]:.2f})" if ratio else "-"


# ---- one table per suite: (header, rows of text) ----


def timing_table(rows):
    """Milliseconds per image of every engine, and how often we fit into the fastest peer's time."""
    engines = engines_of(rows)
    header = [*SHAPE_HEADER, *(f"{short(e)} ms" for e in engines), "GFLOP/s", "fastest peer"]
    lines = []
    for row in rows:
        line = shape_cells(row)
        for engine in engines:
            line.append(
                cell(
                    row["engines"].get(engine),
                    "seconds",
                    lambda s, row=row: f"{s[1] / row['batch'] * 1e3:.2f}",
                )
            )
        ours = row["engines"].get(OURS)
        line.append(
            cell(
                ours,
                "seconds",
                lambda s, row=row: f"{2e-9 * row['macs'] * row['batch'] / s[1]:.1f}",
            )
        )
        line += [short(row["fastest_peer"] or "-"), ratio_text(row["ratio"])]
        lines.append(line)
    return [*header, "its time / ours (quartiles)"], lines


def scaling_table(rows):
    header, lines = timing_table(rows)
    return ["over", *header], [[row["axis"], *line] for row, line in zip(rows, lines, strict=True)]


def training_table(rows):
    """As for inference; GFLOP/s count a step as three forwards."""
    header, lines = timing_table([{**row, "macs": 3 * row["macs"]} for row in rows])
    engines = engines_of(rows)
    for row, line in zip(rows, lines, strict=True):
        for engine in engines:
            line.append(cell(row["engines"].get(engine), "peak_rss", lambda b: f"{b / MIB:.0f}"))
    return [*header, *(f"{short(e)} MiB" for e in engines)], lines


def coldstart_table(rows):
    header = ["model", "engine", "start s", "import s", "load s", "first s", "in all s"]
    header += ["quartiles", "later call s", "plan and packing s", "peak MiB"]
    lines = []
    for row in rows:
        for engine in engines_of(rows):
            entry = row["engines"].get(engine)
            if entry is None:
                continue
            line = [row["model"], engine]
            for key in ("start", "import", "load", "first", "total"):
                line.append(cell(entry, key, lambda s: f"{s:.3f}"))
            line.append(cell(entry, "total_quartiles", lambda q: f"{q[0]:.3f}-{q[2]:.3f}"))
            for key in ("later", "plan_and_packing"):
                line.append(cell(entry, key, lambda s: f"{s:.3f}"))
            line.append(cell(entry, "peak_rss_first", lambda b: f"{b / MIB:.0f}"))
            lines.append(line)
    return header, lines


def memory_table(rows):
    engines = engines_of(rows)
    header = [*SHAPE_HEADER, *(f"{short(e)} MiB" for e in engines)]
    return header, [
        shape_cells(row)
        + [cell(row["engines"].get(e), "peak_rss", lambda b: f"{b / MIB:.0f}") for e in engines]
        for row in rows
    ]


def spinning_table(rows):
    header = ["model", "threads", "engine", "cores busy in the 0.3 s after a call"]
    header += ["our time beside it / alone"]
    return header, [
        [
            row["model"],
            str(row["threads"]),
            engine,
            cell(row["engines"].get(engine), "idle_cores", lambda c: f"{c:.2f}"),
            cell(row["engines"].get(engine), "slows_us_by", lambda r: f"{r:.2f}"),
        ]
        for row in rows
        for engine in row["engines"]
    ]


TABLES = {
    "inference": timing_table,
    "scaling": scaling_table,
    "training": training_table,
    "coldstart": coldstart_table,
    "memory": memory_table,
    "spinning": spinning_table,
}


# ---- forms ----


def text_table(header, lines):
    """Columns under each other; the first ones are words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            word.ljust(width) if i == 0 else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *lines)
    )


def markdown_table(header, lines):
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def csv_text(document):
    """A line for every engine of every row, numbers in seconds and bytes."""
    shape = ["model", "height", "width", "batch", "threads"]
    if document["suite"] == "scaling":
        shape = ["axis", *shape]
    lines = []
    for row in document["rows"]:
        for engine, entry in row["engines"].items():
            line = {key: row[key] for key in shape} | {"engine": engine}
            for key, value in entry.items():
                if key == "info":
                    line |= {f"info_{k}": v for k, v in value.items()}
                elif key in ("seconds", "ratio") and isinstance(value, list):
                    line |= dict(
                        zip((f"{key}_q1", f"{key}_median", f"{key}_q3"), value, strict=True)
                    )
                elif key == "total_quartiles":
                    line |= {"total_q1": value[0], "total_q3": value[2]}
                elif key == "rounds":
                    line["rounds"] = len(value)
                else:
                    line[key] = value
            line["fastest_peer"] = int(row.get("fastest_peer") == engine)
            lines.append(line)
    columns = list(dict.fromkeys(key for line in lines for key in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def geometric_mean(values):
    product = 1.0
    for value in values:
        product *= value ** (1 / len(values))
    return product


def notes(document):
    """What has to be said below a table: errors, notes, missing engines, the mean ratio."""
    said = []
    ratios = [row["ratio"][1] for row in document["rows"] if row.get("ratio")]
    if ratios:
        said.append(
            f"Fastest peer's time / ours: geometric mean {geometric_mean(ratios):.3f} over "
            f"{len(ratios)} rows, least {min(ratios):.2f}, largest {max(ratios):.2f}."
        )
    load, cores = document["machine"]["load_average"][0], document["machine"]["usable_cores"]
    if load > BUSY * cores:
        said.append(f"The machine was busy with other work (load average {load:.1f}).")
    for engine, reason in document["missing"].items():
        said.append(f"Without {engine}: {reason}.")
    for row in document["rows"]:
        where = " ".join(shape_cells(row)[:1]) + f" batch {row['batch']} threads {row['threads']}"
        for engine, entry in row["engines"].items():
            for kind in ("error", "unavailable", "note"):
                if kind in entry:
                    text = f"{engine}: {entry[kind]}"
                    said.append(f"{where}: {text}" if kind == "error" else text)
    return list(dict.fromkeys(said))


def row_lines(suite, row):
    """A row as it is finished, for people who wait."""
    header, lines = TABLES[suite]([row])
    return text_table(header, lines).splitlines()


def machine_lines(document):
    machine = document["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    caches = ", ".join(f"{k} {v >> 10} KiB" for k, v in machine["caches"].items())
    cap = document["options"].get("isa")
    return [
        f"{machine['cpu']}, {machine['cores']['physical']} cores "
        f"({machine['cores']['logical']} logical), {caches}",
        f"lucid_c on {machine['lucid_c']['isa']}"
        + (f", everybody held to {cap}" if cap else "")
        + f"; {versions}",
        f"{machine['system']}, load average at the start {machine['load_average'][0]:.2f}",
        f"{document['date']}, {document.get('seconds', 0):.0f} s",
    ]


def no_errors(document):
    """Whether no engine failed."""
    return not any("error" in e for row in document["rows"] for e in row["engines"].values())


def read_documents(folder):
    """The documents of a folder by suite."""
    found = {}
    for suite in ORDER:
        path = folder / f"{suite}.json"
        if path.exists():
            found[suite] = json.loads(path.read_text(encoding="utf-8"))
    return found


def make_reports(folder, shown=ORDER):
    """Write ``report.md``, a CSV file per suite, and plots if matplotlib is there.

    Parameters
    ----------
    folder : pathlib.Path
        Where the JSON is and the rest goes.
    shown : sequence of str, optional
        The suites of which the tables are given back.

    Returns
    -------
    str
        The tables as text.
    """
    documents = read_documents(folder)
    pictures = {}
    try:
        import plots
    except ImportError as error:
        without = f"No plots: {error}."
    else:
        without = ""
        for suite, document in documents.items():
            pictures[suite] = plots.draw(document, folder)
    page, text = ["# Results"], []
    for suite, document in documents.items():
        header, lines = TABLES[suite](document["rows"])
        said = notes(document)
        replace_text(folder / f"{suite}.csv", csv_text(document))
        page += [f"## {suite}", "  \n".join(machine_lines(document))]
        page += [markdown_table(header, lines), "\n".join(f"* {line}" for line in said)]
        page += [f"![{suite}]({name})" for name in pictures.get(suite, [])]
        if suite in shown:
            text += [f"== {suite}", *machine_lines(document), "", text_table(header, lines)]
            text += ["", *said, ""]
    replace_text(folder / "report.md", "\n\n".join(part for part in page if part) + "\n")
    return "\n".join([*text, without]).strip()


def replace_text(path, text):
    """Written beside its place and moved there, so that an interrupted run leaves whole files."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)

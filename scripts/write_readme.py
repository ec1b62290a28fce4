"""Write the blocks of README.md, RESULTS.md and CLUSTER.md that hold numbers (`make readme`): numbers come from
files, never from typing.

A block stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->`; everything else is prose, and
`stray_numbers` finds what was typed there."""
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from selmatch.core import write_atomic
from selmatch.methods import find_method, methods
from selmatch.select.window import best_beta
from selmatch.show.bench import bench_table
from selmatch.show.plots import accuracy_table, same_images
from selmatch.show.published import published_accuracies, published_by_size
from selmatch.study.verdicts import compare, describe_sample

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "figures"


def read_figure(profile: str, name: str) -> tuple[pd.DataFrame, dict]:
    """The rows and the provenance of a committed figure."""
    place = FIGURES / profile / name
    card = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    return pd.read_csv(place.with_suffix(".csv")), card


def markdown(table: pd.DataFrame) -> str:
    """A table of texts, its index as the first column."""
    head = f"| {table.index.name or ''} | " + " | ".join(table.columns) + " |\n"
    rows = [f"| {name} | " + " | ".join(row) + " |" for name, row in zip(table.index, table.values)]
    return head + "|---" * (len(table.columns) + 1) + "|\n" + "\n".join(rows)


def write_table(profile: str, beside: str = "") -> str:
    """Table 1 of a profile; with `beside`, a dataset whose published numbers stand below."""
    table, card = read_figure(profile, "tab1_accuracy")
    wide = accuracy_table(table).rename_axis("method").rename(columns="{} kept".format)
    if beside:
        theirs = published_by_size(published_accuracies(beside)).unstack("ratio")
        theirs = theirs.reindex(index=wide.index, columns=sorted(table.ratio.unique()))
        theirs = theirs.dropna(how="all").rename(index="{}, published".format)
        texts = theirs.map(lambda share: "–" if pd.isna(share) else f"{share:.1f}")
        wide = pd.concat([wide, texts.set_axis(wide.columns, axis=1)]).rename_axis("method")
    judge = card["profile"]["evaluation"]
    passes = judge.get("epochs", 0)
    least = f" or {passes} passes, whichever is more," * bool(passes)
    return (f"Test accuracy in percent, mean over sets ± half of Student's 95 % interval, in brackets "
            f"sets × networks on each ({describe_sample(table)}; {judge['steps']:,} steps{least} a network). ★ marks "
            f"the highest mean of a column.{say_judging(table)}\n\n{markdown(wide)}")


def say_judging(table: pd.DataFrame) -> str:
    """How rows of table 1 are judged where they differ, and which have the same images."""
    if "augmentation" not in table:         # drawn by earlier code
        return ""
    combined = table[table.augmentation == "combined"].method.unique()
    others = sorted(set(table.augmentation) - {"combined"})
    said = ""
    if len(combined) and others:
        said = (f" *{', '.join(combined)}*: judged with combined augmentation, the other rows with "
                f"{' or '.join(others)}")
        twin = f"{combined[0]}, DSA"
        said += f"; *{twin}* are the same sets judged as those." if twin in set(table.method) else "."
    sizes = {}
    for ratio, names in same_images(table).items():
        for pair in names.items():
            sizes.setdefault(pair, []).append(f"{ratio:.0%}")
    same = [f"{name} and {other} at {', '.join(at)}" for (name, other), at in sizes.items()
            if name != f"{other}, DSA"]
    return said + (f" The same images: {'; '.join(same)}." if same else "")


def write_window(profile: str) -> str:
    """Where validation images put the window, and what figure 3 rests on."""
    table, card = read_figure(profile, "fig3_window")
    chosen = best_beta(table, card["profile"]["window"]["choose_on"])
    path = " → ".join(f"{beta:g}" for _, beta in sorted(chosen.items()))
    sizes = ", ".join(f"{ratio:.0%}" for ratio in sorted(chosen))
    return f"Chosen on validation images, β is {path} at sizes of {sizes}."


def write_agreement(profile: str) -> str:
    """How far scores of a few networks agree with the profile's, and what the readings of β reach."""
    table, _ = read_figure(profile, "fig7_scores")
    rho = table[table.what == "agreement"].groupby("of").spearman.agg(["mean", "min", "max"])
    names = {"el2n": "EL2N", "forgetting": "forgetting", "forgetting, ties ordered": "forgetting with its ties ordered by EL2N"}
    said = "; ".join(f"{name}: {rho['mean'][of]:.2f} ({rho['min'][of]:.2f} to {rho['max'][of]:.2f})" for of, name in names.items())
    given = table[(table.what == "window") & (table.of == "given")]
    best = 100 * given.groupby(["beta_of", "beta"]).test_accuracy.mean().groupby("beta_of").max()
    return (f"* Rank correlation with the official score within a class, mean over the classes (and the least and the largest): {said}.\n"
            f"* The best of {given.beta.nunique()} windows reaches {best['class']:.1f} % where β is a share of the class, "
            f"{best['ipc']:.1f} % where it is a share of the images kept.\n" + write_claims(profile, "fig7_scores"))


def gather_claims(claims: Iterable[dict]) -> dict[str, list[tuple[str, dict]]]:
    """Claims that differ only in the size, together: sentence -> (size, claim)."""
    found = {}
    for claim in claims:
        parts = re.fullmatch(r"(.*) at ([\d.]+%)\.?", claim["sentence"])
        sentence, size = parts.groups() if parts else (claim["sentence"].rstrip("."), "")
        found.setdefault(sentence, []).append((size, claim))
    return found


def say_claim(size: str, claim: dict) -> str:
    """One verdict with its numbers, such as `5%: holds (+1.20 ± 0.40)`."""
    gap = say_gap(claim, 2)
    if claim["half"] is None:
        gap += f", {claim['sets']} set"
    said = f"{claim['verdict']} ({gap})"
    return f"{size}: {stress(claim, said)}" if size else said


def say_gap(claim: dict, places: int) -> str:
    """A difference in points with half its interval, where there is one."""
    half = "" if claim["half"] is None else f" ± {claim['half']:.{places}f}"
    return f"{claim['gap']:+.{places}f}{half}"


def stress(claim: dict, said: str) -> str:
    """What is said of a claim: bold where it is decided, and nothing else where images are the same."""
    if claim["verdict"] == "the same":
        return "the same images"
    return f"**{said}**" if claim["verdict"] in ("holds", "does not hold") else said


def write_claims(profile: str, name: str, of: str = "") -> str:
    """The claims of a figure in which `of` stands, a line a sentence."""
    claims = [c for c in read_figure(profile, name)[1].get("claims", []) if of in c["sentence"]]
    return "\n".join(f"* {sentence}: " + "; ".join(say_claim(*look) for look in looks) + "."
                     for sentence, looks in gather_claims(claims).items())


def write_gains(profile: str, name: str, to: str, joint: str = "at") -> str:
    """Claims of one form, `A TO THERE.` (TO is a pattern), as a table: a row for each A, a column for
    each THERE, the best on average first; and how many are decided."""
    claims = read_figure(profile, name)[1].get("claims", [])
    form = re.compile(rf"(.*?) {to} {joint} (.*?)\.?")
    found = [(*m.groups(), c) for c in claims if (m := form.fullmatch(c["sentence"]))]
    table = pd.DataFrame([{"method": a, "there": there, "gap": c["gap"], "text": stress(c, say_gap(c, 1))}
                          for a, there, c in found])
    order = table.groupby("method").gap.mean().sort_values(ascending=False).index
    wide = table.pivot(index="method", columns="there", values="text").loc[order]
    wide = wide[list(dict.fromkeys(table.there))].fillna("–")
    counts = pd.Series([c["verdict"] for *_, c in found]).value_counts()
    said = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    rest = f", with {len(claims) - len(found)} others" if len(claims) > len(found) else ""
    return f"{len(found)} questions, corrected together{rest}: {said}.\n\n{markdown(wide)}"


def count_verdicts(profile: str, name: str) -> str:
    """How many claims of a figure hold, in a sentence, with those that are decided by name."""
    claims = read_figure(profile, name)[1].get("claims", [])
    decided = {verdict: [c["sentence"].rstrip(".") for c in claims if c["verdict"] == verdict]
               for verdict in ("holds", "does not hold")}
    said = [f"**{verdict}**: " + "; ".join(f"*{sentence}*" for sentence in sentences)
            for verdict, sentences in decided.items() if sentences]
    open_ones = len(claims) - sum(map(len, decided.values()))
    looks = {(c["sentence"].split(" teaches ")[0], c["sentence"].split(" at ")[-1], c["gap"],
              c["half"]) for c in claims}
    twice = len(claims) - len(looks)
    again = f" ({twice} of them asked twice, of rows that are the same images)" * bool(twice)
    return (f"Of {len(claims)} claims about SelMatch against the other rows{again}, {open_ones} are "
            "undecided with so few sets. " + ". ".join(said) + ".")


FIRST_ROW = ["h200_first_row.json", "h200_three_sets.json"]       # runs of `scripts/gpu_first_row.py`


def row_of_run(found: dict) -> tuple[str, list[str]]:
    """A run's title and its means; with several sets the standard deviation between them."""
    said, sets = [], max(line["sets"] for line in found["table"])
    for line in found["table"]:
        spread = f" ± {line['std_sets']:.1f}" if line["std_sets"] else ""
        said.append(f"{line['mean']:.1f}{spread}" if line["sets"] else "not judged")
        assert line["sets"] in (0, sets) and line["networks"] == line["sets"], "samples differ"
    many = f"{sets} set{'s' * (sets > 1)}, {found['settings']['iterations']} iterations"
    return f"ours, {many}", said


def write_first_row() -> str:
    """The paper's first row, as one GPU gave it in two runs, and what may be said of it."""
    runs = [json.loads((FIGURES / "bench" / file).read_text(encoding="utf-8"))
            for file in FIRST_ROW]
    lines = dict(map(row_of_run, runs))
    lines["published, 10,000 iterations"] = [f"{line['published']:.1f}" for line in runs[0]["table"]]
    titles = [methods[line["method"]].title for line in runs[0]["table"]]
    s, machine = runs[-1]["settings"], runs[-1]["machine"]
    rows = pd.DataFrame(runs[-1]["rows"]).assign(ratio=0.05)
    (gap,) = compare(rows, [("mtt", "random")]).itertuples()     # the window is one set, not three
    said = (f"{methods[gap.a].title} over {methods[gap.b].title}, by {gap.sets} pairs of sets: {gap.gap:+.1f} ± "
            f"{gap.half:.1f} points (half a 95 % interval), {gap.verdict}.")
    notes = "\n\n".join(run["note"] for run in runs)
    return (f"{machine['processor']}, PyTorch {machine['torch'].split('+')[0]}: {s['ipc']} images a "
            f"class, {s['judge']['name']}, one network a set (± the standard deviation between them), "
            f"{s['experts']} experts of {s['expert_epochs']} epochs for 100 of 100, {s['judge_steps']:,} "
            f"steps of the judges for 19,500; judges in {s['precision']['judge']}, experts and "
            f"matching in {s['precision']['match'].upper()}.\n\n{markdown(pd.DataFrame(lines, index=titles).T)}\n\n"
            f"{said}\n\n{notes}")


def write_bench(file: str) -> str:
    """What a bench file says of matching: memory first, then time, the fair allocator first."""
    result = json.loads((FIGURES / "bench" / file).read_text(encoding="utf-8"))
    table = bench_table(result)
    times = table[(table.part == "matching") & (table.batch == 125)]
    lines = [f"{result['processor']}, PyTorch {result['versions']['torch'].split('+')[0]}, "
             f"medians (`figures/bench/{file}`):"]
    fair = result["device"] == "cuda" or set(times.memory) == {"as it comes", "kept"}
    for (n, memory), rows in times.groupby(["n_steps", "memory"], sort=False):
        if "textbook" in set(rows.way):
            said = "; ".join(f"{row.way} {row.median:.2f} s" + f" ({row.ratio:.2f})" * fair
                             for row in rows.itertuples())
            how = "" if result["device"] == "cuda" else f", freed memory {memory}"
            lines.append(f"* N = {n}{how}: {said}.")
    if not fair:
        lines.append("* With memory kept for both this file has nothing, so no ratio is given.")
    lines.sort(key=lambda line: ("*" in line, "With memory" in line, "as it comes" in line))
    return "\n".join([*lines, *write_limits(result["rows"], times), *write_memory(result["rows"])])


def write_memory(rows: list[dict]) -> list[str]:
    """Peak memory of matching, a line for each allocator; on a GPU there is one."""
    lines = []
    memory = pd.DataFrame([row for row in rows if row["part"] == "memory" and row["batch"] == 125])
    memory = memory.assign(memory=memory.get("memory", pd.Series("as it comes", memory.index)))
    several = memory.memory.nunique() > 1
    for how, mine in sorted(memory.groupby("memory", sort=False), key=lambda group: group[0] != "kept"):
        said = "; ".join(f"{row.way} at N = {row.n_steps} {row.peak_mb / 1000:.1f} GB" for row in mine.itertuples())
        lines.append("* Peak memory" + f", freed memory {how}" * several + f": {said}.")
    return lines


def write_limits(rows: list[dict], times: pd.DataFrame) -> list[str]:
    """What a way with all steps kept takes at the rate of a first-order step, and bfloat16 beside float32: for files that measured both."""
    rows, lines = pd.DataFrame([{"memory": "as it comes"} | row for row in rows]), []
    kept = rows[rows.memory == "kept"]
    floor, half = kept[kept.part == "floor"].seconds, kept[kept.part == "precision"]
    plain = times[(times.memory == "kept") & (times.way == "textbook")]
    if len(floor) and len(plain):
        shares = [f"{3 * floor.median() * row.n_steps / row.median:.2f} at N = {row.n_steps}" for row in plain.itertuples()]
        lines.append(f"* The limit where all is kept: nine passes, at the rate of a compiled first-order step, which takes three in {floor.median():.2f} s, "
                     f"would be {' and '.join(shares)} of the textbook's time.")
    if len(half):
        seconds, exact = half.groupby("way").seconds.median(), rows[(rows.part == "exactness") & (rows.way == "kept, bfloat16")]
        cosines = ", ".join(f"{row.cosine:.4f} with {row.activation}" for row in exact.itertuples())
        lines.append(f"* In bfloat16, all kept, N = {half.n_steps.iloc[0]:.0f}: {seconds['kept, bfloat16']:.2f} s, "
                     f"{seconds['kept, bfloat16'] / seconds['kept']:.2f} of float32's; cosine to float64 (two steps): {cosines}.")
    return lines


def write_plan() -> str:
    """What the paper's table takes on GPUs like the one that was measured, a row a profile."""
    table = pd.read_csv(FIGURES / "bench" / "plan.csv")
    kinds = {"watch": "experts and difficulty", "train experts": "experts and difficulty", "distill": "distilling",
             "choose": "choosing checkpoints"}
    kind = table.stage.map(lambda stage: next((v for k, v in kinds.items() if stage.startswith(k)), "judging"))
    order = ["experts and difficulty", "distilling", "choosing checkpoints", "judging"]
    hours = table.assign(kind=kind).pivot_table(index="profile", columns="kind", values="gpu_hours", aggfunc="sum",
                                                sort=False)[order]
    sums = table.groupby("profile", sort=False).agg(jobs=("jobs", "sum"), longest=("seconds", "max"),
                                                    all=("gpu_hours", "sum"), disk=("gigabytes", "sum"))
    sums.loc["all"] = [sums.jobs.sum(), sums.longest.max(), sums["all"].sum(), sums.disk.sum()]
    hours.loc["all"] = hours.sum()
    texts = {"jobs": sums.jobs.map("{:,.0f}".format)} | {f"{name}, GPU hours": hours[name].map("{:.0f}".format)
                                                         for name in order}
    texts |= {"all, GPU hours": sums["all"].map("{:.0f}".format),
              "longest job": (sums.longest / 3600).map("{:.1f} h".format),
              "on disk": sums.disk.map("{:.0f} GB".format)}
    seeds = table.seeds.unique()
    assert len(seeds) == 1, "profiles differ in their sets"
    return markdown(pd.DataFrame(texts).rename_axis(f"profile ({seeds[0]} sets a row)"))


def write_cluster() -> str:
    """What two workers bring, here and by Dask, and what travels."""
    table = pd.read_csv(FIGURES / "bench" / "cluster.csv")
    one, medians = table.iloc[0], table.groupby("way", sort=False).seconds.median()
    said = "; ".join(f"{way} {seconds:.1f} s ({medians['one process'] / seconds:.2f} times as fast)"
                     for way, seconds in medians.items())
    return (f"{one.tasks} networks of one size of `{one.profile}`, two cores of an {one.processor}, PyTorch {one.torch}, "
            f"Dask {one.dask}, medians of {table.turn.nunique()} turns: {said}; the same bits in all. A task weighs "
            f"{table['bytes'].median() / 1000:.1f} kB when it is sent (median); {one.data_mb:.2f} MB of images travel "
            f"once to each worker.")


def write_minutes() -> str:
    """How long each selection takes, what it holds in memory, and what its images teach."""
    table = pd.read_csv(FIGURES / "bench" / "minutes.csv")
    one, said = table.iloc[0], lambda numbers, form: ["–" if pd.isna(x) else form.format(x) for x in numbers]
    texts = {"method": table.method.map(lambda name: methods[name].title if name in methods else name),
             "epochs": [looks(row) for row in table.itertuples()],
             "processes × threads": [f"{row.workers} × {row.threads}" for row in table.itertuples()],
             "minutes": said(table.minutes, "{:.1f}"),
             "memory, all processes": said(table.memory_gb, "{:.1f} GB"),
             "memory, the largest": said(table.largest_gb, "{:.1f} GB"),
             "test accuracy": [f"{row.accuracy:.1f} ± {row.std:.1f} %" for row in table.itertuples()]}
    return (f"{one.images:,} of {one.of:,} images, {one.processor}, PyTorch {one.torch}; "
            f"means of {one.networks} networks, ± their standard deviation.\n\n"
            f"{markdown(pd.DataFrame(texts).set_index('method'))}")


def looks(row) -> str:
    """For how many epochs the networks learn that a selection looks at."""
    if row.method == "random":
        return "–"
    return str(row.score_epochs if row.method in ("window", "ccs") else row.proxy_epochs)


def write_peaks() -> str:
    """Memory and bytes of three places, in two states of the code."""
    table = pd.read_csv(FIGURES / "bench" / "peaks.csv")
    said = {"dm": "an iteration of DM, 20 classes of 64 pixels", "checkpoint": "100 iterations with four checkpoints",
            "coverage": "50,000 images through coverage"}
    wide = table.pivot(index="part", columns="state")
    old, new = sorted(table.state.unique(), key=lambda state: state.split()[1])
    rows = {name: [f"{wide.peak_gb[old][part]:.1f} → {wide.peak_gb[new][part]:.1f} GB",
                   f"{wide.written_mb[old][part]:,.0f} → {wide.written_mb[new][part]:,.0f} MB"]
            for part, name in said.items()}
    table = pd.DataFrame(rows, index=["largest resident memory", "written"]).T
    return markdown(table.rename_axis(f"before ({old}) → after ({new})"))


def write_taught(profile: str) -> str:
    """What a teacher's labels add to the images of a row, by means of the table of everything."""
    table = read_figure(profile, "tab1_everything")[0]
    means = 100 * table.groupby(["method", "ratio"]).test_accuracy.mean().unstack()
    pairs = {"random images": ("Random, teacher", "Random"), "the best window": ("Best window, teacher", "Best window"),
             "SelMatch's sets": ("SelMatch, teacher", "SelMatch, DSA")}
    added = {name: means.loc[taught] - means.loc[plain] for name, (taught, plain) in pairs.items()}
    said = "; ".join(f"{name} {' / '.join(f'{gain:+.1f}' for gain in gains)}" for name, gains in added.items())
    sizes = " / ".join(f"{ratio:.0%}" for ratio in means.columns)
    return f"By means, in points at {sizes}, a teacher adds to {said}."


def write_blocks() -> str:
    """What DM on a large set took while its blocks were counted in pixels, and takes."""
    table = pd.read_csv(FIGURES / "bench" / "peaks_dm.csv")
    old, new = dict.fromkeys(table.state)
    middle = table.groupby("state")[["peak_gb", "seconds"]].median()
    (turns,), (processor,) = {table.turn.nunique()}, table.processor.unique()
    return (f"Three iterations of DM on 30 % of CIFAR-10's numbers (10 classes, 1,350 small images each, width 32), one "
            f"thread of an {processor}, medians of {turns} turns: {middle.peak_gb[old]:.1f} → {middle.peak_gb[new]:.1f} GB, "
            f"{middle.seconds[old]:.0f} → {middle.seconds[new]:.0f} s ({old} → {new}).")


def write_official(profile: str, folder: str) -> str:
    """What the window figure from official files has in common with the one from a folder."""
    place = ["ratio", "beta", "set_seed", "seed"]
    both = [read_figure(name, "fig3_window")[0].set_index(place) for name in (profile, folder)]
    parts = {"validation": "validation_accuracy", "test": "test_accuracy"}
    same = {part: int((both[0][column] == both[1][column]).sum()) for part, column in parts.items()}
    n = len(both[0].index.union(both[1].index))
    said = " and ".join(f"{count} on {part} images" for part, count in same.items())
    return f"Of {n} networks, {said} have the same accuracy to the last digit whichever way the images came."


def write_convolutions() -> str:
    """What steps take beside their own convolutions, and where the rest goes."""
    table = pd.read_csv(FIGURES / "bench" / "convolutions.csv")
    said = lambda numbers: [f"{x:.1f} ms" for x in numbers]
    share = lambda part: [f"{x:.2f}" for x in part / table.step_ms]
    names = {"judge": "training", "matching": "matching, all kept"}
    rows = [f"{names[row.what]}, width {row.width}, batch {row.batch}, {row.threads} thread{'s' * (row.threads > 1)}"
            for row in table.itertuples()]
    inner = table.inside_ms + table.fused_ms + table.other_ms
    texts = {"one step": said(table.step_ms), "its convolutions, alone": said(table.convolutions_ms),
             "their share": share(table.convolutions_ms),
             "within the compiled code: convolutions": [f"{x:.2f}" for x in table.inside_ms / inner],
             "norms, ReLUs, pooling": [f"{x:.2f}" for x in table.fused_ms / inner],
             "all else": [f"{x:.2f}" for x in table.other_ms / inner]}
    wide = pd.DataFrame(texts, index=pd.Index(rows, name="step of"))
    one, matching = table.iloc[0], table[table.what == "matching"]
    least = [f"with {row.threads} thread{'s' * (row.threads > 1)} the step takes {row.step_ms / row.textbook_ms:.2f} of it, its convolutions "
             f"alone {row.convolutions_ms / row.textbook_ms:.2f}, and with the sixteen passes over memory that a batch norm cannot do "
             f"without {(row.convolutions_ms + row.memory_ms) / row.textbook_ms:.2f}" for row in matching.itertuples()]
    return (f"{one.processor}, PyTorch {one.torch}, medians, freed memory kept.\n\n{markdown(wide)}\n\nBeside the textbook's way, "
            f"in the same turns: {'; '.join(least)}.")


def compare_picks(profile: str) -> str:
    """Whether the step sizes that a profile has are those that its record of trials picks today."""
    rows, card = read_figure(profile, "tab5_tuning")
    tuned, same, others = card["profile"]["tuned"], [], []
    for name, mine in rows[rows.picked].groupby("method"):
        words = {"lr_images": float(mine.lr_images.iloc[0])}
        if mine.share.iloc[0] < 1:
            words["iterations"] = int(mine.iterations.iloc[0])
        if tuned.get(name) == words:
            same.append(name)
        else:
            others.append((name, mine.iloc[0], rows[(rows.method == name) & (rows.lr_images == words["lr_images"])]))
    said = [f"{find_method(name).title} with {pick.iterations} iterations ({100 * pick.score:.1f} % of the validation images, "
            f"{100 * looks.score.iloc[-1]:.1f} after all {looks.iterations.iloc[-1]}; one standard error is "
            f"{100 * pick.error:.1f})" for name, pick, looks in others]
    rest = f" Today it would pick otherwise: {'; '.join(said)}." * bool(others)
    return (f"The picks were made when the record was drawn first; drawn anew, where last bits differ, it picks the same "
            f"in {len(same)} of {len(same) + len(others)} families, and the tables have the first picks.{rest}")


def write_tuning(file: str) -> str:
    """Every trial of the step sizes: validation accuracy after the last iteration, or at an earlier look that is picked; the pick in bold."""
    rows = pd.read_csv(FIGURES / "bench" / file)
    rows = rows[rows.picked | (rows.share == 1) | (rows.factor == 0)]      # before any iteration, after the last, or picked
    last = rows.sort_values("picked", kind="stable").groupby(["method", "factor"]).tail(1).sort_index()
    say = lambda row: f"{100 * row.score:.1f}" if not row.picked else f"**{100 * row.score:.1f}**" + (f" after {row.iterations}" if row.share < 1 else "")
    texts = last.apply(say, axis=1)
    columns = last.factor.map(lambda f: f"{f:g} of the default" if f else "the start")
    wide = last.assign(text=texts, column=columns, method=[find_method(name).title for name in last.method])
    wide = wide.pivot(index="method", columns="column", values="text").loc[list(dict.fromkeys(wide.method)), list(dict.fromkeys(columns))]
    (ratio,), (networks,), error = rows.ratio.unique(), rows.networks.unique(), 100 * rows.error.max()
    return (f"Accuracy on validation images in percent at {ratio:.0%}, one set a trial and {networks} networks a set "
            f"(one standard error of a share is at most {error:.1f}); of each trial what it has after its last iteration, or after fewer where that is picked. "
            f"Bold: picked, which is, of all looks within one standard error of the best, the one nearest to the "
            f"default.\n\n{markdown(wide)}")


TO_RANDOM = "teaches more than random images(?: under the same (?:online )?teacher)?"
BLOCKS = {
    "plan": write_plan,
    "cluster": write_cluster,
    "minutes": write_minutes,
    "peaks": write_peaks,
    "dm blocks": write_blocks,
    "convolutions": write_convolutions,
    "table digits": lambda: write_table("digits"),
    "verdicts digits": lambda: count_verdicts("digits", "tab1_accuracy"),
    "window digits": lambda: write_window("digits"),
    "window claims digits": lambda: write_claims("digits", "fig3_window"),
    "claims digits": lambda: write_claims("digits", "tab1_accuracy"),
    "coverage digits": lambda: write_claims("digits", "fig1_coverage"),
    "coverage cifar10-jpeg-lite": lambda: write_claims("cifar10-jpeg-lite", "fig1_coverage"),
    "parts digits": lambda: write_claims("digits", "tab2_ablation"),
    "alpha digits": lambda: write_claims("digits", "fig4_alpha"),
    "variants digits": lambda: write_claims("digits", "tab6_variants", "than SelMatch, DSA"),
    "variants cifar10-jpeg-lite": lambda: write_claims("cifar10-jpeg-lite", "tab6_variants",
                                                       "than SelMatch, DSA"),
    "everything digits": lambda: write_gains("digits", "tab1_everything", TO_RANDOM),
    "everything cifar10-jpeg-lite": lambda: write_gains("cifar10-jpeg-lite", "tab1_everything",
                                                        TO_RANDOM),
    "teacher cifar10-jpeg-lite": lambda: write_claims("cifar10-jpeg-lite", "tab1_everything",
                                                      "than SelMatch, DSA"),
    "taught cifar10-jpeg-lite": lambda: write_taught("cifar10-jpeg-lite"),
    "transfer digits": lambda: write_gains("digits", "tab3_transfer",
                                           "teaches more than random images", "under"),
    "picks digits": lambda: compare_picks("digits"),
    "tuning cifar10-jpeg-lite": lambda: write_tuning("photo_tuning.csv"),
    "table cifar10-jpeg-lite": lambda: write_table("cifar10-jpeg-lite", "cifar10"),
    "claims cifar10-jpeg-lite": lambda: write_claims("cifar10-jpeg-lite", "tab1_accuracy"),
    "window cifar10-jpeg-lite": lambda: write_window("cifar10-jpeg-lite"),
    "window claims cifar10-jpeg-lite": lambda: write_claims("cifar10-jpeg-lite", "fig3_window"),
    "scores cifar10-jpeg-lite": lambda: write_agreement("cifar10-jpeg-lite"),
    "official cifar10-lite": lambda: write_official("cifar10-lite", "cifar10-jpeg-lite"),
    "first row": write_first_row,
    "bench cpu": lambda: write_bench("cpu.json"),
    "bench gpu": lambda: write_bench("h200.json"),
}


def renew(text: str) -> str:
    """A page with its blocks as the files say."""
    def block(match):
        return f"{match[1]}\n{BLOCKS[match[2]]()}\n{match[4]}"
    return re.sub(r"(<!-- begin: ([^>]*?) -->)\n(.*?)\n?(<!-- end: \2 -->)", block, text,
                  flags=re.DOTALL)


def stray_numbers(text: str) -> list[str]:
    """Numbers with a decimal point that were typed: outside blocks, code, links and versions; what
    was withdrawn is quoted, not said."""
    for kind in (r"<!-- begin: ([^>]*?) -->.*?<!-- end: \1 -->", r"```.*?```", r"`[^`\n]*`",
                 r"\]\([^)]*\)", r"## Withdrawn\n.*?(?=\n## )",
                 r"(Python|PyTorch|Apache|version)[- ]\d+\.\d+(\.\d+)?"):
        text = re.sub(kind, "", text, flags=re.DOTALL)
    return re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text)


PAGES = ("README.md", "RESULTS.md", "CLUSTER.md")


if __name__ == "__main__":
    for name in PAGES:
        page = ROOT / name
        text = renew(page.read_text(encoding="utf-8"))
        write_atomic(page, lambda draft: draft.write_text(text, encoding="utf-8"))

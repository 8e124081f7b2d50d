"""The Failure gallery: a question, a visitor's answer, and then what really happens."""

import inspect

import streamlit as st

from explorer import controls
from explorer.plot import plot
from explorer.table import table
from normcore.figures.failures import curves
from normcore.lab.failures import FAILURES, Failure, Reveal, audited, planted
from normcore.lab.failures.planted import Block

SHOW = "Just show me"
MORE = {
    "regions.py": "Turn these regions yourself",
    "method.py": "All about this method",
    "batch.py": "Try it with a batch of your own",
    "distributions.py": "See it on every value",
}
"""What a link to each page promises."""


@st.cache_data(max_entries=64, show_spinner=False)
def _shown(key: str) -> tuple[Reveal, tuple[tuple[str, str], ...]]:
    """What a failure comes to, and what the detector says of it."""
    failure = FAILURES[key]
    return failure.show(), tuple((finding.sentence, finding.remedy) for finding in failure.found())


@st.cache_data(max_entries=1, show_spinner=False)
def _audited() -> str:
    return str(audited())


def choose() -> Failure:
    """The gallery's names side by side, one click each."""
    titles = {failure.title: failure for failure in FAILURES.values()}
    return titles[controls.choose("Failure", list(titles), "failure", label_visibility="collapsed")]


def ask(failure: Failure) -> str | None:
    """The question, and the answer that a visitor gave."""
    st.subheader(failure.question)
    return controls.ask("What do you expect?", [*failure.answers, SHOW], f"answer_{failure.key}")


def reveal(failure: Failure, answer: str) -> None:
    """What happened, why, what helps, in code, and where there is more of it."""
    shown, found = _shown(failure.key)
    right = failure.answers[shown.answer]
    verdict = f"**{right}.** {shown.said}"
    if answer == SHOW:
        st.info(verdict, icon=":material/visibility:")
    elif answer == right:
        st.success(f"Right. {verdict}", icon=":material/check_circle:")
    else:
        st.info(f"It is otherwise. {verdict}", icon=":material/lightbulb:")
    picture, words = st.columns([6, 5], gap="large")
    with picture:
        plot(
            curves(shown.x, shown.series, failure.axes, failure.log, shown.points),
            key=f"failure_{failure.key}",
            alt=f"{failure.axes[1]} over {failure.axes[0]}, for {', '.join(shown.series)}. {shown.said}",
            height=420,
        )
    with words:
        st.markdown(f"**Why.** {failure.why}")
        st.markdown(f"**What helps.** {failure.remedy}")
        for sentence, remedy in found:
            st.warning(f"{sentence} {remedy}", icon=":material/warning:")
        if found:
            st.caption("What `normcore.diagnose` says of it.")
        st.page_link(
            f"../pages/{failure.page}",
            label=MORE[failure.page],
            icon=":material/arrow_forward:",
            query_params=failure.link,
        )
    code, numbers = st.tabs(["Code", "Numbers"], key="below", bind="query-params")
    with code:
        st.code(failure.code, language="python")
    with numbers:
        columns = {failure.axes[0]: shown.x, **shown.series}
        table(columns, key=f"failure_{failure.key}", file=failure.key, height=300)


def own_model() -> None:
    """The same detector over all norms of a model, on one with planted faults."""
    report, code = st.tabs(["What it finds", "The model"], key="model", bind="query-params")
    with report:
        st.caption("On a small residual network with faults planted in it, and a batch of four:")
        table, found = _audited().split("\n\n", 1)
        st.code(table, language=None)  # its rows are as wide as they are, and scroll
        st.code(found, language=None, wrap_lines=True)
    with code:
        source = f"{inspect.getsource(Block)}\n\n{inspect.getsource(planted)}"
        head = "import torch\nfrom torch import Tensor, nn\n\nimport normcore\n\n\n"
        st.code(f"{head}{source}\n\nprint(normcore.audit(planted(), torch.randn(4, 3, 16, 16)))", language="python")

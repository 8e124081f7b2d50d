"""Who else decides my output? The other samples of the batch, those of the past, and padding."""

import streamlit as st

from explorer import controls
from explorer.batch_view import accumulation, batch_size, over_time
from explorer.neighbor_view import pads, swap
from normcore import NormcoreError

QUESTIONS = {
    "Over time": (over_time, "What does evaluation use?", "Not the batch at hand, but what the layer remembers of it."),
    "Batch size": (
        batch_size,
        "How wrong is the statistic of a small batch?",
        "For the mean of m independent values about 1/√m: m is how many *share* it, not how many are in the batch. "
        "Values that are alike, and other statistics, have errors of their own; they are measured here.",
    ),
    "Accumulation": (
        accumulation,
        "Does accumulating gradients make up for a small batch?",
        "Only where all that share a statistic stay together: it is taken inside each micro-batch, and no sum of "
        "gradients mends that.",
    ),
    "Swap a neighbor": (
        swap,
        "Does a stranger in the batch change your output?",
        "One *other* sample is replaced; yours stays as it is. Where your output moves all the same, samples meet.",
    ),
    "Padding": (
        pads,
        "Does empty space count?",
        "Sentences of unlike length share a tensor. What fills the rest enters every statistic that reaches over it.",
    ),
}

controls.begin()
st.title("Who else decides my output?")
st.markdown(
    "Where samples share a statistic, your output depends on **who else is in the batch**; in evaluation, on the "
    "batches of the past. Each tab asks one question of it, and answers it by measuring."
)
notices = st.container()
for tab, (show, question, answer) in zip(
    st.tabs(list(QUESTIONS), key="about", bind="query-params"), QUESTIONS.values(), strict=True
):
    if tab.open:
        with tab:
            st.subheader(question)
            st.markdown(answer)
            try:
                show()
            except NormcoreError as error:
                st.warning(str(error), icon=":material/warning:")
with notices:
    for sentence in controls.notices():
        st.warning(sentence, icon=":material/info:")

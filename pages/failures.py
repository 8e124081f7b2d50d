"""What goes wrong? The ways in which normalization fails, each with a prediction to make first."""

import streamlit as st

from explorer import controls, failure_view

controls.begin()
st.title("What goes wrong?")
st.markdown(
    "A statistic misleads where its region holds **too few values**, values **too much alike** or **too unlike**, "
    "values that are **no data**, more digits than the number format has, or **another batch's past**. "
    "Choose a failure, say what you expect, and see."
)
failure = failure_view.choose()
answer = failure_view.ask(failure)
for sentence in controls.notices():
    st.warning(sentence, icon=":material/info:")
if answer is None:
    st.caption("Answer, and the experiment runs.")
else:
    failure_view.reveal(failure, answer)

st.subheader("In a model of your own")
st.markdown(
    "`normcore.diagnose` warns of one method on one tensor, as on the pages here; "
    "`normcore.audit(model, example_input)` looks over every norm layer of a model."
)
failure_view.own_model()

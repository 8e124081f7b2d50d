"""The pages of the app: the one list that the navigation and the home page are made from."""

# file, name in the navigation, the question it answers, icon, address, what it is for
PAGES = (
    (
        "home.py",
        "Home",
        "normcore",
        ":material/deployed_code:",
        "",
        "What normalization does, and where to look at it.",
    ),
    (
        "regions.py",
        "Regions",
        "Who shares a statistic?",
        ":material/view_in_ar:",
        "regions",
        "See which elements of a tensor every method normalizes together.",
    ),
    (
        "distributions.py",
        "Statistics",
        "What does it do to my numbers?",
        ":material/bar_chart:",
        "statistics",
        "Numbers before and after: distributions, means and deviations of every region, gradients.",
    ),
    (
        "batch.py",
        "Batch",
        "Who else decides my output?",
        ":material/group:",
        "batch",
        "Measure what the batch, its past and its padding do to a sample.",
    ),
    (
        "equality.py",
        "Equality",
        "When are two norms the same?",
        ":material/equal:",
        "equality",
        "Compare every two methods by what comes out, who shares, and what is learned; and what moves none of them.",
    ),
    (
        "failures.py",
        "Failures",
        "What goes wrong?",
        ":material/warning:",
        "failures",
        "Foresee and watch the ways in which normalization fails, and learn what mends them.",
    ),
    (
        "catalogue.py",
        "Methods",
        "Which methods are there?",
        ":material/grid_view:",
        "catalogue",
        "Every normalization and clipping method, with a picture and a line each.",
    ),
    (
        "method.py",
        "Method",
        "What is this method?",
        ":material/menu_book:",
        "method",
        "Formula, settings, equalities, checks, cost and code of one method.",
    ),
)

"""One evaluation, from counts to report.json, report.md and report.html."""

"""One page, in one file, that shows where every head of every layer of a model looks.

    seen = capture(model, variables, images)                # one image
    view = make_view(seen, pixels, model="swin_tiny", image="cat.jpg")
    page = Page([view])                                      # in a notebook it shows itself
    page.save("look.html")

Several images, and two models side by side, are several views. Attention travels as `Rows`, of 8
bits and compressed, which `data.js` spreads over the map as `Rows.dense` does.
"""

from vitjax.analysis.page.page import Page
from vitjax.analysis.page.view import View, make_view

__all__ = ["Page", "View", "make_view"]

"""A graph as a self-contained HTML table for notebooks: nodes in order, shapes, sources, bodies nested in place."""

from __future__ import annotations

from html import escape

import numpy as np

from ltc_compiler.ir.graph import Graph, Node, Source, Value

_STYLE = """<style>
.nnir{border-collapse:collapse;font:12px ui-monospace,monospace;margin:4px 0}
.nnir td,.nnir th{border:1px solid #8884;padding:2px 8px;text-align:left;vertical-align:top}
.nnir caption{text-align:left;font-weight:bold;padding:4px 0}
.nnir .op{font-weight:bold}.nnir .io{background:#4a90d922}.nnir .state{background:#e0a03022}
.nnir .scan{background:#7b61c41c}.nnir .source{color:#888}
</style>"""
_COLUMNS = ("value", "type", "op", "operands", "source")


def draw(graph: Graph) -> str:
    """HTML of `graph`: inputs, states, nodes and outputs in order; the body of a scan is a table inside its row."""
    return _STYLE + _table(graph, f"{graph.name}: {sum(1 for _ in graph.walk())} nodes")


class _Labels(dict[Value, str]):
    """What each value is called: its name, or a number."""

    def __missing__(self, value: Value) -> str:
        self[value] = f"%{value.name}" if value.name else f"%{len(self)}"
        return self[value]


def _table(graph: Graph, caption: str) -> str:
    labels = _Labels()
    head = "".join(f"<th>{c}</th>" for c in _COLUMNS)
    rows = [
        _row("io", labels[v], v, "input", v.role.value if v.role.value != "plain" else "")
        for v in graph.inputs
    ]
    rows += [
        _row(
            "state",
            labels[s.value],
            s.value,
            f"{s.kind.value} state",
            f"next {labels[s.next] if s.next else '?'}",
        )
        for s in graph.states
    ]
    for node in graph.nodes:
        rows.append(_node(node, labels))
    rows += [
        _row("io", labels[v], v, f"output {name}", "")
        for v, name in zip(graph.outputs, graph.output_names, strict=True)
    ]
    return f'<table class="nnir"><caption>{escape(caption)}</caption><tr>{head}</tr>{"".join(rows)}</table>'


def _row(kind: str, label: str, value: Value, op: str, operands: str) -> str:
    cells = (label, str(value.type), op, operands, "")
    return f'<tr class="{kind}">' + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"


def _node(node: Node, labels: _Labels) -> str:
    attrs = ", ".join(f"{k}={_attribute(v)}" for k, v in node.attrs.items() if not isinstance(v, Graph))
    operands = escape(", ".join(labels[v] for v in node.operands)) + (
        f" <i>{escape(attrs)}</i>" if attrs else ""
    )
    names = escape(", ".join(labels[v] for v in node.results))
    types = escape(", ".join(str(v.type) for v in node.results))
    source = "" if node.source == Source() else escape(str(node.source))
    op = escape(node.op + (f" ({node.precision.value})" if node.precision is not None else ""))
    row = (f'<td>{names}</td><td>{types}</td><td class="op">{op}</td><td>{operands}</td>'
           f'<td class="source">{source}</td>')  # fmt: skip
    if "body" not in node.attrs:
        return f"<tr>{row}</tr>"
    body = _table(node.body, f"{node.body.name}, {node.attrs['trip_count']} times")
    return f'<tr class="scan">{row}</tr><tr class="scan"><td></td><td colspan="4">{body}</td></tr>'


def _attribute(value: object) -> str:
    if not isinstance(value, np.ndarray):
        return str(value)
    return f"{float(value.reshape(-1)[0]):g}" if value.size == 1 else f"{value.size} numbers"

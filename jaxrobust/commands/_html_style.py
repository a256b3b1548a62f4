"""The style of the reports, and a short script that opens the target of a link."""

STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --soft: #555; --line: #ddd;
  --block: #f6f6f6; --mark: #0072b2; --bad: #a00 }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --page: #16181b; --soft: #aaa;
  --line: #3a3d42; --block: #22252a; --mark: #6cb6ff; --bad: #ff8a80 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--text); background: var(--page) }
a { color: var(--mark) } h1 { overflow-wrap: anywhere }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
nav a { margin-right: 1rem; white-space: nowrap }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .4rem; text-align: right; border-bottom: 1px solid var(--line) }
th { vertical-align: bottom } td { white-space: nowrap; vertical-align: top }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--page) }
td a { color: inherit; text-decoration-color: var(--soft) } td.best { font-weight: 700 }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere }
.facts td:first-child { position: static; white-space: nowrap; color: var(--soft) }
img { max-width: min(100%, 58rem); height: auto; background: #fff; cursor: zoom-in }
figure { margin: 1.5rem 0; overflow-x: auto } figcaption { color: var(--soft); font-size: 14px }
figure input { display: none }
figure input:checked + img { max-width: none; cursor: zoom-out }
details { margin: .4rem 0 } details details { margin-left: 1rem } summary { cursor: pointer }
section > details > summary { font-weight: 600 }
pre { overflow: auto; max-height: 18rem; background: var(--block); padding: .8rem; font-size: 13px }
:target { outline: 2px solid var(--mark) } .failed { color: var(--bad); text-align: left }
"""
# A link into something folded opens it.
SCRIPT = """
function reveal() {
  let at = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const target = at;
  if (at && at.matches("section"))
    at.querySelectorAll(":scope > details").forEach(each => each.open = true);
  for (; at; at = at.parentElement) if (at.matches("details")) at.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", reveal); addEventListener("load", reveal);
"""

"""How the private report looks: one style sheet for light, dark, phone and paper."""

from __future__ import annotations

# No address in it may be fetched and no script run, whatever slips into the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --dim: #62666d; --line: #d9dce1; --soft: #f4f5f7; --page: #fff; --mark: #e0752d }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --dim: #9aa0a8; --line: #3a3e45; --soft: #23262b; --page: #16181c } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 46rem; color: var(--ink); background: var(--page);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; white-space: pre-wrap }
.dim, caption { color: var(--dim) } caption { text-align: left; padding-bottom: .3rem }
.verdict { font-size: 1.15rem; border-left: 4px solid var(--mark); padding: .2rem 0 .2rem .8rem; margin: 1.2rem 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .92rem; overflow-wrap: normal }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600 } tbody th { font-weight: 400; color: var(--dim) } td { min-width: 3rem }
.text { background: var(--soft); border-radius: .4rem; padding: .6rem .8rem; margin: .5rem 0; white-space: pre-wrap }
.held { outline: 1px dashed var(--mark) }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem }
.bar { display: inline-block; height: .7rem; background: #3d85c6; vertical-align: middle }
pre { font: 11px/1.35 ui-monospace, monospace; background: var(--soft); border-radius: .4rem; padding: .8rem; overflow-x: auto }
svg { display: block; max-width: 100% }
@media (max-width: 34rem) { .pair { grid-template-columns: 1fr } h1 { font-size: 1.4rem } }
@media print { body { max-width: none; padding: 0; font-size: 11pt } h2 { break-after: avoid }
  .text, tr, svg { break-inside: avoid } pre { font-size: 7pt; white-space: pre-wrap } }
"""

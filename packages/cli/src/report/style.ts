/** The style sheet of the page: light and dark, from 360 pixels, and for print. */
export const style = `
:root { --page: #fff; --text: #1c2430; --soft: #5b6675; --line: #d9dee5; --card: #f5f7f9;
  --answered: #2f7d5b; --throttled: #d99a1c; --failed: #c23b3b; --other: #9aa4b1; --open: #6a4fc4; --closed: #d5e6dd; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181d; --text: #e6eaef; --soft: #9aa5b3; --line: #303842; --card: #1d232a;
    --answered: #4fae85; --throttled: #e2b045; --failed: #e36a6a; --other: #6d7783; --open: #a48df0; --closed: #26382f; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.25rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.35rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
header p, .note, footer, small { color: var(--soft); }
header p { margin: .2rem 0 0; }
.note { font-size: .87rem; margin: .5rem 0; }
.stopped { color: var(--failed); overflow-wrap: anywhere; }
.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0 0; }
.totals div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.totals dt { color: var(--soft); font-size: .87rem; }
.totals dd { margin: 0; }
.totals strong { display: block; font-size: 1.45rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.totals span { display: block; color: var(--soft); font-size: .82rem; overflow-wrap: anywhere; }
figure { margin: 0 0 .9rem; }
figcaption { font-weight: 600; font-size: .92rem; overflow-wrap: anywhere; }
figcaption small { font-weight: 400; }
svg { display: block; width: 100%; height: 64px; background: var(--card); }
svg.circuit { height: 9px; margin-top: 2px; background: none; }
line.open { stroke: var(--open); stroke-width: 5px; stroke-dasharray: 6px 3px; vector-effect: non-scaling-stroke; }
rect.answered { fill: var(--answered); } rect.throttled { fill: var(--throttled); } rect.failed { fill: var(--failed); }
rect.other { fill: var(--other); } rect.closed { fill: var(--closed); }
.axis { display: flex; justify-content: space-between; margin: 0; color: var(--soft); font-size: .82rem; }
.legend { margin: 0 0 .6rem; font-size: .87rem; }
.legend span { display: inline-block; margin-right: .9rem; white-space: nowrap; }
.legend i { display: inline-block; width: .75em; height: .75em; margin-right: .35em; border-radius: 2px; }
.legend .answered i { background: var(--answered); } .legend .throttled i { background: var(--throttled); }
.legend .failed i { background: var(--failed); } .legend .other i { background: var(--other); }
.legend .open i { width: 1.6em; height: 0; border-top: 4px dashed var(--open); border-radius: 0; vertical-align: .2em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
td { overflow-wrap: anywhere; min-width: 3rem; }
.scroll td:not(.number) { min-width: 5rem; } .scroll td:nth-child(2):not(.number) { min-width: 7rem; }
.scroll td.long:not(.number) { min-width: 12rem; } .scroll td.long:nth-child(4) { min-width: 18rem; }
.scroll td:last-child, .scroll th:last-child { padding-right: 0; }
.scroll:focus-visible { outline: 2px solid var(--open); }
.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
th.number { min-width: 4rem; }
.quantile { margin-right: 1.2rem; white-space: nowrap; }
.bars th { width: 6.5rem; font-weight: 400; white-space: nowrap; }
.bars td, .bars th { border: 0; padding: .1rem .6rem .1rem 0; }
.bars td:last-child { width: 4rem; }
.bars svg { height: 14px; background: none; margin-top: .3rem; }
footer { margin: 2.5rem 0 1rem; font-size: .85rem; }
@media print {
  :root { --page: #fff; --text: #000; --soft: #444; --line: #bbb; --card: #fff; --closed: #e4efe9; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr, .totals div { break-inside: avoid; }
  h2 { break-after: avoid; }
  .scroll { overflow: visible; }
  rect, i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`

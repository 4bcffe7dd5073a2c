// A click on a heading sorts its table, a second one turns the order round; tables and figures that go on to the right are marked.
// Without it all is there to read, in the order in which it was written.
const text = (row, column) => row.cells[column].firstChild?.textContent ?? "";
const number = (row, column) => parseFloat(text(row, column).replaceAll("−", "-").replaceAll(",", ""));

function sort(table, heads, column) {
  const words = heads[column].classList.contains("words");
  const down = heads[column].ariaSort ? heads[column].ariaSort === "ascending" : !words;
  const sign = down ? -1 : 1;
  const order = [...table.tBodies[0].rows].sort((a, b) => {
    if (words) return sign * text(a, column).localeCompare(text(b, column), undefined, { numeric: true });
    const [x, y] = [number(a, column), number(b, column)];
    return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
  });
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...order);
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, heads, column));
    head.append(button);
  });
}

const marks = new ResizeObserver((seen) => {
  for (const { target } of seen) {
    const scrolls = target.scrollWidth > target.clientWidth;
    target.classList.toggle("goes-on", scrolls);
    target.tabIndex = scrolls ? 0 : -1;
  }
});
document.querySelectorAll(".box, .picture").forEach((box) => marks.observe(box));

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target?.scrollIntoView();
}
addEventListener("hashchange", reveal);
if (location.hash) reveal();

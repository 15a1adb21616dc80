// Tables sort by a click on a column's title; without this they stay in the order of the bench file.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const first = head.dataset.first || "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const value = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      // What is unknown stands last either way.
      const compare = (a, b) => (value(a) === "") - (value(b) === "")
        || sign * (column ? value(a) - value(b) : value(a).localeCompare(value(b), undefined, { numeric: true }));
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// On paper there is nothing to click.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach(one => one.open = true);
});
addEventListener("afterprint", () => opened.forEach(one => one.open = false));

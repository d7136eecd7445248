"use strict";
const table = document.getElementById("replication");
const form = document.getElementById("filters");

function valueOf(row, column, numeric) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return numeric ? (text === "" ? null : Number(text)) : text;
}

function compare(a, b, numeric) {
  return numeric ? a - b : a.localeCompare(b, "en", { numeric: true });
}

// Rows without a value stay last in both directions.
function sortBy(header) {
  const rising = header.getAttribute("aria-sort") !== "ascending";
  const column = header.cellIndex;
  const body = table.tBodies[0];
  const numeric = Array.from(body.rows).some((row) => row.cells[column].dataset.value !== undefined);
  const keyed = Array.from(body.rows, (row) => ({ row, value: valueOf(row, column, numeric) }));
  keyed.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    return (rising ? 1 : -1) * compare(a.value, b.value, numeric);
  });
  for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  body.append(...keyed.map((one) => one.row));
}

function filter() {
  const kind = document.getElementById("kind").value;
  const figure = document.getElementById("figure").value.trim().toLowerCase();
  const text = document.getElementById("text").value.trim().toLowerCase();
  const wanted = new Set();
  for (const box of form.querySelectorAll("input:checked")) {
    wanted.add(box.closest("fieldset").dataset.kind + box.value);
  }
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const { kind: own, verdict } = row.dataset;
    row.hidden = !(
      (!kind || kind === own) &&
      wanted.has(own + verdict) &&
      row.cells[0].firstChild.textContent.toLowerCase().includes(figure) &&
      row.textContent.toLowerCase().includes(text)
    );
    shown += !row.hidden;
  }
  document.getElementById("shown").textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
}

function showAll(event) {
  event.preventDefault();
  for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = true;
  for (const field of form.querySelectorAll("select, input[type=search]")) field.value = "";
  filter();
}

if (table) {
  for (const header of table.tHead.rows[0].cells) {
    header.firstElementChild.addEventListener("click", () => sortBy(header));
  }
  form.addEventListener("input", filter);
  form.addEventListener("reset", showAll);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector(".controls").hidden = false;
  filter();
}

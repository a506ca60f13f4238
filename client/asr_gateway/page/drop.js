// A recording dropped anywhere on the page.

/** veil: shown while one is held over the page.  onFile(file) */
export function setUpDrop(veil, onFile) {
  let depth = 0; // of elements that were entered: each tells of its own
  const hasFile = (event) => event.dataTransfer?.types.includes("Files");
  const end = () => {
    depth = 0;
    veil.hidden = true;
  };
  addEventListener("dragenter", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    depth += 1;
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (hasFile(event) && --depth <= 0) end();
  });
  addEventListener("dragover", (event) => {
    if (hasFile(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    end();
    if (event.dataTransfer.files[0]) onFile(event.dataTransfer.files[0]);
  });
}

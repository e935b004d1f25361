"use strict";
// The page is complete without this: it only adds the buttons that save.
addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const save = (name, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const button = (place, text, label, action) => {
    const b = document.createElement("button");
    b.type = "button";
    b.textContent = text;
    b.setAttribute("aria-label", label);
    b.addEventListener("click", action);
    place.append(b);
    place.hidden = false;
  };
  // Twice as fine as it is shown: for screens that are.
  const png = (name, svg) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = 2 * image.width;
      canvas.height = 2 * image.height;
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(blob => save(name, blob), "image/png");
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
  };
  for (const place of document.querySelectorAll("[data-picture]")) {
    const id = place.dataset.picture, svg = data.pictures[id];
    button(place, "PNG", "Save as PNG: " + id, () => png(id + ".png", svg));
    button(place, "SVG", "Save as SVG: " + id, () => save(id + ".svg", new Blob([svg], { type: "image/svg+xml" })));
  }
  const place = document.getElementById("data-save");
  const json = value => new Blob([JSON.stringify(value, null, 1) + "\n"], { type: "application/json" });
  button(place, "Statistics (JSON)", "Save the statistics as JSON", () => save("statistics.json", json(data.summary)));
  button(place, "Runs (JSON)", "Save the runs as JSON", () => save("runs.json", json(data.runs)));
});

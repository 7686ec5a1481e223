(function () {
  "use strict";
  var main = document.querySelector("main");
  var words = main.dataset;
  var drop = document.querySelector(".drop");
  var field = drop.querySelector("input");
  var answers = document.getElementById("answers");
  var queue = Promise.resolve();

  function element(name, text, kind) {
    var made = document.createElement(name);
    if (text !== undefined) { made.textContent = text; }
    if (kind) { made.className = kind; }
    return made;
  }
  function picture(source, caption) {
    var figure = element("figure"), image = element("img");
    image.src = source;
    image.alt = caption;
    figure.appendChild(image);
    figure.appendChild(element("figcaption", caption));
    return figure;
  }
  function fill(section, told) {
    var box = element("div", undefined, "answer"), image = element("img");
    image.src = told.picture;
    image.alt = words.image;
    box.appendChild(image);
    var table = element("table", undefined, "list"), head = table.createTHead().insertRow();
    head.appendChild(element("th", words.class, "text"));
    head.appendChild(element("th", words.probability));
    head.appendChild(element("td", undefined, "bars"));
    var body = table.createTBody();
    told.top.forEach(function (score) {
      var row = body.insertRow(), name = element("th", score.name);
      name.scope = "row";
      row.appendChild(name);
      row.appendChild(element("td", (100 * score.probability).toFixed(1) + " %"));
      var cell = element("td", undefined, "bars"), bar = element("span", undefined, "bar");
      bar.style.setProperty("--v", (100 * score.probability).toFixed(1) + "%");
      bar.style.setProperty("--l", "0%");
      bar.style.setProperty("--h", "0%");
      cell.appendChild(bar);
      row.appendChild(cell);
    });
    var side = element("div", undefined, "scroll");
    side.appendChild(table);
    box.appendChild(side);
    var maps = element("div", undefined, "maps");
    told.heat.forEach(function (source, number) { 
      maps.appendChild(picture(source, words.speaks.replace("%", told.top[number].name)));
    });
    maps.appendChild(picture(told.seen, words.seen));
    box.appendChild(maps);
    section.appendChild(box);
  }
  function send(file) {
    var section = element("section");
    section.appendChild(element("h2", file.name));
    var state = element("p", words.waiting);
    section.appendChild(state);
    answers.insertBefore(section, answers.firstChild);
    queue = queue.then(function () {
      return fetch("answer", { method: "POST", body: file, headers: { "X-Token": words.token } });
    }).then(function (response) { return response.json(); }).then(function (told) {
      if (told.error) {
        state.className = "wrong";
        state.textContent = told.error;
      } else {
        state.remove();
        fill(section, told);
      }
      document.body.dataset.done = Number(document.body.dataset.done || 0) + 1;
    }).catch(function () {
      state.className = "wrong";
      state.textContent = words.gone;
    });
  }
  function all(files) { Array.prototype.forEach.call(files, send); }
  field.addEventListener("change", function () { all(field.files); field.value = ""; });
  ["dragenter", "dragover"].forEach(function (name) {
    document.addEventListener(name, function (event) { event.preventDefault(); drop.classList.add("over"); });
  });
  document.addEventListener("dragleave", function () { drop.classList.remove("over"); });
  document.addEventListener("drop", function (event) {
    event.preventDefault();
    drop.classList.remove("over");
    all(event.dataTransfer.files);
  });
})();

(function () {
  "use strict";
  var root = document.documentElement;
  var each = function (list, act) { Array.prototype.forEach.call(list, act); };
  root.classList.add("scripted");

  window.addEventListener("beforeprint", function () {
    each(document.querySelectorAll("details"), function (part) { part.open = true; });
  });

  /* Tables: a click on a heading sorts, words in the field above leave rows out. */
  function key(cell) {
    var text = cell ? cell.dataset.value || cell.textContent.trim() : "";
    var number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
    return { text: text, number: isNaN(number) ? null : number };
  }
  function sorted(table, column, down) {
    var body = table.tBodies[0];
    var rows = Array.from(body.rows);
    rows.sort(function (a, b) {
      var x = key(a.cells[column]), y = key(b.cells[column]);
      var words = x.number === null || y.number === null;
      var order = words ? x.text.localeCompare(y.text) : x.number - y.number;
      return down ? -order : order;
    });
    rows.forEach(function (row) { body.appendChild(row); });
  }
  each(document.querySelectorAll("table.sortable"), function (table) {
    each(table.tHead.rows[0].cells, function (cell, column) {
      if (!cell.textContent.trim()) { return; }
      var button = document.createElement("button");
      button.type = "button";
      while (cell.firstChild) { button.appendChild(cell.firstChild); }
      cell.appendChild(button);
      button.addEventListener("click", function () {
        var words = cell.classList.contains("text");
        var before = cell.getAttribute("aria-sort");
        var down = before ? before === "ascending" : !words;
        each(table.tHead.rows[0].cells, function (other) { other.removeAttribute("aria-sort"); });
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        sorted(table, column, down);
      });
    });
  });
  each(document.querySelectorAll(".tools"), function (tools) {
    var table = tools.parentNode.querySelector("table");
    var field = tools.querySelector("input");
    var told = tools.querySelector("output");
    tools.hidden = false;
    field.addEventListener("input", function () {
      var asked = field.value.trim().toLowerCase(), count = 0;
      each(table.tBodies[0].rows, function (row) {
        row.hidden = asked !== "" && row.textContent.toLowerCase().indexOf(asked) < 0;
        count += row.hidden ? 0 : 1;
      });
      told.textContent = asked === "" ? "" : tools.dataset.rows.replace("%", count);
    });
  });

  /* Pictures: those of a class, or of one that is taken for another, as the address says. */
  var filter = document.querySelector(".filter");
  var cards = document.querySelectorAll("li[data-label]");
  if (filter) {
    var select = filter.querySelector("select");
    var clear = filter.querySelector("button");
    var told = filter.querySelector("output");
    var numbers = {};
    each(select.options, function (option) {
      if (option.value !== "") { numbers[option.textContent] = option.value; }
    });
    var names = {};
    Object.keys(numbers).forEach(function (name) { names[numbers[name]] = name; });
    var part = function (name) {
      var found = new RegExp("[#&]" + name + "=([^&]*)").exec(location.hash);
      if (!found) { return ""; }
      var text;
      try { text = decodeURIComponent(found[1]); } catch (error) { return ""; }
      return numbers[text] || (names[text] ? text : "");
    };
    var show = function () {
      var any = part("class"), label = part("true"), guess = part("as");
      var all = any === "" && (label === "" || guess === "");
      var seen = {}, count = 0, right = 0;  /* a picture may be in several galleries */
      each(document.querySelectorAll(".gallery"), function (gallery) {
        gallery.classList.toggle("chosen", !all);
      });
      each(cards, function (card) {
        var own = card.dataset.label, named = card.dataset.guess;
        card.hidden = !all && !(any !== "" ? own === any || named === any : own === label && named === guess);
        var image = card.querySelector("img").title;
        if (card.hidden || seen["of " + image]) { return; }
        seen["of " + image] = true;
        count += 1;
        right += own === named ? 1 : 0;
      });
      select.value = any;
      clear.hidden = all;
      var words = count === 1 ? filter.dataset.one : filter.dataset.many.replace("%", count);
      if (any === "" && !all) { words = names[label] + " → " + names[guess] + ": " + words; }
      told.textContent = all ? "" : words + filter.dataset.right.replace("%", right);
      return !all;
    };
    filter.hidden = false;
    var go = function (hash) { history.replaceState(null, "", hash); show(); };
    select.addEventListener("change", function () {
      go(select.value === "" ? "#pictures" : "#class=" + encodeURIComponent(names[select.value]));
    });
    clear.addEventListener("click", function () { go("#pictures"); });
    var follow = function () {
      if (show()) { document.getElementById("pictures").scrollIntoView(); }
    };
    window.addEventListener("hashchange", follow);
    window.addEventListener("load", follow);
    show();
  }

  /* A picture that is clicked, or chosen by Enter, is shown large; arrows go to its neighbours. */
  var dialog = document.querySelector("dialog");
  if (dialog && dialog.showModal) {
    var shown = null;
    var place = dialog.querySelector(".place");
    var open = function (card) {
      shown = card;
      place.textContent = "";
      place.appendChild(card.querySelector("figure").cloneNode(true));
      each(place.querySelectorAll("[tabindex]"), function (image) {
        image.removeAttribute("tabindex");
        image.removeAttribute("role");
      });
      if (!dialog.open) { dialog.showModal(); }
    };
    var step = function (by) {
      var seen = Array.from(cards).filter(function (card) { return card.offsetParent !== null; });
      var next = seen[seen.indexOf(shown) + by];
      if (next) { open(next); }
    };
    each(cards, function (card) {
      each(card.querySelectorAll("img"), function (image, number) {
        if (number === 0) {
          image.tabIndex = 0;
          image.setAttribute("role", "button");
        }
        image.addEventListener("click", function () { open(card); });
        image.addEventListener("keydown", function (event) {
          if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(card); }
        });
      });
    });
    dialog.querySelector(".before").addEventListener("click", function () { step(-1); });
    dialog.querySelector(".after").addEventListener("click", function () { step(1); });
    dialog.querySelector(".close").addEventListener("click", function () { dialog.close(); });
    dialog.addEventListener("keydown", function (event) {
      if (event.key === "ArrowLeft") { step(-1); }
      if (event.key === "ArrowRight") { step(1); }
    });
    dialog.addEventListener("click", function (event) { if (event.target === dialog) { dialog.close(); } });
    dialog.addEventListener("close", function () {
      if (shown) { shown.querySelector("img").focus({ preventScroll: true }); }
    });
  }
})();

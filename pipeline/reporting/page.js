"use strict";
// The report's viewer: lists of queries, filtered and opened on demand. It reads the JSON of #data, which
// pipeline/reporting/viewer.py writes, and keeps what is chosen in the page's address, so that a link shows it again.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const controls = document.getElementById("controls");
  const lists = document.getElementById("lists");
  const more = document.getElementById("more");
  const LEVELS = [[0, 0.1], [0.1, 0.3], [0.3, 0.5], [0.5, 1.01]];
  const STEP = 12;
  let chosen = [], shown = 0;

  function make(tag, fields = {}, ...children) {
    const node = Object.assign(document.createElement(tag), fields);
    node.append(...children);
    return node;
  }

  function options(name, entries) {
    const select = controls.elements[name];
    select.replaceChildren(...entries.map(([value, text]) => make("option", {value, textContent: text})));
    select.parentElement.hidden = entries.length < 2;
  }

  const percent = share => `${Math.round(100 * share)}`;
  const number = value => value === null ? "none" : value >= 100 || value === 0 ? value.toFixed(0)
    : value.toPrecision(3);
  const right = list => list.first === 1;
  const run = () => Number(controls.elements.run.value || 0);
  const beside = () => controls.elements.beside.value === "" ? null : Number(controls.elements.beside.value);

  // A picture with its mask and entropy over it; which of them can be seen is the class of an element above.
  function picture(index, over) {
    const image = data.images[index];
    const frame = make("span", {className: "picture" + (over ? ` ${over}` : "")});
    frame.style.aspectRatio = image.ratio;
    frame.append(make("img", {src: `data:image/jpeg;base64,${image.jpg}`, alt: ""}),
                 make("img", {className: "mask", src: `data:image/png;base64,${image.mask}`, alt: ""}),
                 make("img", {className: "entropy", src: `data:image/png;base64,${image.entropy}`, alt: ""}));
    return frame;
  }

  function who(index) {
    const image = data.images[index];
    return `person ${image.pid}, camera ${image.camid}`;
  }

  function outcome(list) {
    return right(list) ? "right at 1" : `first right at ${list.first}`;
  }

  function strip(query, which, named) {
    const list = query.lists[which];
    const row = make("div", {className: "strip"});
    const own = make("span", {className: "item query"}, picture(query.image), make("small", {textContent: "query"}));
    row.append(own);
    list.gallery.forEach((index, place) => {
      const match = list.match[place] === 1;
      const far = list.place[place] > place + 1;
      const said = `${list.place[place]}: ${match ? "same person" : "another"}, distance ${number(list.distance[place])}`;
      const item = make("button", {type: "button", className: `item ${match ? "right" : "wrong"}${far ? " far" : ""}`,
                                   title: said, ariaLabel: said}, picture(index),
                        make("small", {textContent: `${list.place[place]} ${match ? "✓" : "✗"}`}));
      item.addEventListener("click", () => open(item, query, which, place));
      row.append(item);
    });
    const head = named ? [make("h4", {}, `${data.runs[which].name} · `,
                               make("span", {className: right(list) ? "good" : "bad", textContent: outcome(list)}))] : [];
    return make("div", {className: "list"}, ...head, row);
  }

  // Part by part: v_q, v_g, their product w, D, and what w D adds to the distance.
  function open(item, query, which, place) {
    const card = item.closest(".card"), before = card.querySelector(".detail");
    const same = item.classList.contains("open");
    card.querySelectorAll(".open").forEach(one => one.classList.remove("open"));
    if (before) before.remove();
    if (same) return;

    item.classList.add("open");
    const list = query.lists[which], made = data.runs[which];
    const weights = list.visibility.map((v, part) => v * list.visible[place][part]);
    const total = weights.reduce((sum, w) => sum + w, 0);
    const adds = weights.map((w, part) => made.reduction === "mean" ? total > 0 ? w * list.parts[place][part] / total : 0
      : w * list.parts[place][part]);
    const most = Math.max(...adds, 1e-12);
    const head = make("tr", {}, ...["part", "v query", "v gallery", "D", "adds"].map(text =>
      make("th", {textContent: text, scope: "col"})));
    const rows = adds.map((add, part) => {
      const bar = make("i");
      bar.style.width = `${Math.round(100 * add / most)}%`;
      const cells = [list.visibility[part], list.visible[place][part], list.parts[place][part]];
      return make("tr", {className: weights[part] > 0 ? "" : "unseen"},
                  make("th", {textContent: made.parts[part], scope: "row"}),
                  ...cells.map(value => make("td", {textContent: number(value)})),
                  make("td", {className: "adds"}, make("span", {className: "bar"}, bar), number(add)));
    });
    const gallery = list.gallery[place], match = list.match[place] === 1;
    const pictures = [query.image, gallery].map((index, side) => make("figure", {},
      make("div", {className: "views"}, picture(index), picture(index, "over-mask"), picture(index, "over-entropy")),
      make("figcaption", {textContent: `${side ? `place ${list.place[place]}` : "query"}: ${who(index)}, `
        + data.images[index].name})));
    const close = make("button", {type: "button", className: "close", textContent: "close"});
    const legend = document.getElementById("legend").cloneNode(true);
    legend.removeAttribute("id");
    legend.hidden = false;
    const divided = made.reduction === "mean" ? ", divided by the sum of all v v" : "";
    const detail = make("div", {className: "detail"}, close,
      make("p", {className: "verdict", textContent: `${made.name}, place ${list.place[place]}: `
        + `${match ? "the same person" : "another person"}, ` + (list.distance[place] === null
          ? "no part is seen in both" : `distance ${number(list.distance[place])}`)}),
      make("div", {className: "pair"}, ...pictures), legend,
      make("div", {className: "wide", tabIndex: 0}, make("table", {}, make("thead", {}, head),
                                                         make("tbody", {}, ...rows))),
      make("p", {className: "note", textContent: "v: how far the part is seen, 0 to 1; D: "
        + `${made.distance === "cosine" ? "1 - cosine" : "Euclidean distance"} of the two features of the part; adds: `
        + `v v D${divided}, what the part adds to the distance.`}));
    close.addEventListener("click", () => open(item, query, which, place));
    item.closest(".list").after(detail);
  }

  function card(query) {
    const image = data.images[query.image], other = beside();
    const said = [who(query.image)];
    if (query.hidden !== null) said.push(`${percent(query.hidden)} % hidden`);
    if (image.lacks.length) said.push(`parser misses ${image.lacks.join(", ")}`);
    const list = query.lists[run()];
    const badge = make("strong", {className: right(list) ? "good" : "bad", textContent: outcome(list)});
    const head = make("h3", {}, ...(other === null ? [badge, " "] : []), make("span", {textContent: said.join(" · ")}));
    const shows = other === null || other === run() ? [run()] : [run(), other];
    return make("article", {className: "card", id: `q-${image.name}`}, head,
                ...shows.map(which => strip(query, which, shows.length > 1)));
  }

  const tests = {
    show: {all: () => true, wrong: query => !right(query.lists[run()]), right: query => right(query.lists[run()]),
           differ: query => beside() !== null && right(query.lists[run()]) !== right(query.lists[beside()]),
           better: query => beside() !== null && right(query.lists[run()]) && !right(query.lists[beside()]),
           worse: query => beside() !== null && !right(query.lists[run()]) && right(query.lists[beside()])},
    hidden: (value, query) => value === "" || (query.hidden !== null
      && query.hidden >= LEVELS[value][0] && query.hidden < LEVELS[value][1]),
    lacks: (value, query) => value === "" || (value === "nothing" ? !data.images[query.image].lacks.length
      : data.images[query.image].lacks.includes(value)),
  };

  function grow() {
    lists.append(...chosen.slice(shown, shown + STEP).map(card));
    shown = Math.min(shown + STEP, chosen.length);
    more.hidden = shown === chosen.length;
    more.textContent = `more queries (${chosen.length - shown})`;
  }

  function update() {
    const pick = name => controls.elements[name].value;
    for (const value of ["differ", "better", "worse"]) {
      const option = controls.elements.show.querySelector(`[value=${value}]`);
      if (option) option.disabled = beside() === null || beside() === run();
    }
    if (controls.elements.show.selectedOptions[0].disabled) controls.elements.show.value = "all";

    chosen = data.queries.filter(query => tests.show[pick("show")](query) && tests.hidden(pick("hidden"), query)
      && tests.lacks(pick("lacks"), query));
    if (pick("order") === "wrong") {
      chosen = chosen.map((query, place) => [query, place])
        .sort((a, b) => b[0].lists[run()].first - a[0].lists[run()].first || a[1] - b[1]).map(([query]) => query);
    }
    const good = chosen.filter(query => right(query.lists[run()])).length;
    const others = beside() === null ? 0 : chosen.filter(query => right(query.lists[beside()])).length;
    document.getElementById("count").textContent = (chosen.length === 0
      ? `None of the ${data.queries.length} queries here is such.`
      : `${chosen.length} of the ${data.queries.length} queries here; ${data.runs[run()].name} has ${good} of them right`
        + (beside() === null ? "." : `, ${data.runs[beside()].name} ${others}.`)
        + " Touch a picture for its distance, part by part.");
    document.body.dataset.over = pick("over");
    document.getElementById("legend").hidden = pick("over") !== "mask";
    shown = 0;
    lists.replaceChildren();
    grow();
  }

  function remember() {
    const state = new URLSearchParams();
    for (const select of controls.elements) {
      if (select.selectedIndex > 0) state.set(select.name, select.value);
    }
    history.replaceState(null, "", `#${state}`);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [name, value] of state) {
      const select = controls.elements[name];
      if (select && [...select.options].some(option => option.value === value)) select.value = value;
    }
  }

  function crops() {
    const place = document.getElementById("crops");
    if (!place) return;
    for (const kind of data.crops) {
      const row = make("div", {className: "strip"});
      for (const [index, why, mask] of kind.items) {
        const over = picture(index, "over-mask");
        if (mask) over.querySelector(".mask").src = `data:image/png;base64,${mask}`;
        row.append(make("figure", {className: "item", title: data.images[index].name},
                        make("span", {className: "views"}, picture(index, "plain"), over), make("small", {textContent: why})));
      }
      place.append(make("h4", {textContent: kind.title}), row);
    }
  }

  const named = data.runs.map((one, place) => [place, one.name]);
  const groups = [...new Set(data.queries.flatMap(query => data.images[query.image].lacks))].sort();
  const levels = data.queries.some(query => query.hidden !== null)
    ? LEVELS.map(([low, high], place) => [place, `${percent(low)}-${percent(Math.min(high, 1))} %`]) : [];
  options("run", named);
  options("beside", [["", "none"], ...(named.length > 1 ? named : [])]);
  options("show", [["all", "all"], ["wrong", "wrong"], ["right", "right"],
                   ...(named.length > 1 ? [["differ", "the two disagree"], ["better", "run right, other wrong"],
                                           ["worse", "run wrong, other right"]] : [])]);
  options("hidden", [["", "any"], ...levels]);
  options("lacks", [["", "any"], ...(groups.length ? [["nothing", "nothing"]] : []),
                    ...groups.map(name => [name, name])]);
  options("order", [["wrong", "wrong first"], ["name", "by name"]]);
  options("over", [["", "nothing"], ["mask", "mask"], ["entropy", "entropy"]]);
  controls.hidden = false;
  recall();
  controls.addEventListener("change", () => { remember(); update(); });
  addEventListener("hashchange", () => {
    if (location.hash.includes("=")) { recall(); update(); }  // else it is a heading of the page
  });
  more.addEventListener("click", grow);
  update();
  addEventListener("DOMContentLoaded", crops);  // whose place stands further down
})();

// Builds elements from plain descriptions and changes only what differs, so that nothing flickers, and what a
// person opened, selected or scrolled stays. Text only ever becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props, ...kids) {
  const shown = kids.flat(Infinity).filter((kid) => kid !== null && kid !== undefined && kid !== false);
  return { tag, props: props ?? {}, kids: shown.map((kid) => (typeof kid === "object" ? kid : String(kid))) };
}

export function patch(parent, kids) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (child.made?.key !== undefined) keyed.set(child.made.key, child);
  kids.forEach((kid, place) => {
    const there = parent.childNodes[place] ?? null;
    const node = typeof kid === "string" ? textNode(there, kid) : element(parent, there, keyed, kid);
    if (node !== there) parent.insertBefore(node, there);
    if (typeof kid !== "string") patch(node, kid.kids);
    // only what is among its options can be chosen
    if (kid.tag === "select" && node.value !== kid.props.value) node.value = kid.props.value;
  });
  while (parent.childNodes.length > kids.length) parent.lastChild.remove();
}

function textNode(there, words) {
  if (there?.nodeType !== Node.TEXT_NODE) return document.createTextNode(words);
  if (there.data !== words) there.data = words;
  return there;
}

function element(parent, there, keyed, { tag, props }) {
  let node = props.key === undefined ? there : keyed.get(props.key);
  if (node?.localName !== tag || node.made?.key !== props.key) {
    const space = tag === "svg" || parent.namespaceURI === SVG ? SVG : "http://www.w3.org/1999/xhtml";
    node = document.createElementNS(space, tag);
  }
  const before = node.made ?? {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(props)])) {
    if (before[name] !== props[name]) set(node, name, props[name]);
  }
  node.made = props;
  return node;
}

function set(node, name, value) {
  if (name === "key") return;
  if (name.startsWith("on")) node[name] = value ?? null;
  else if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}

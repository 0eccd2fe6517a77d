// Try a client on the golden set of an exported run.

/** Run the inputs of a golden set; give the lowest cosine between the vectors found and those of the set. */
export async function check(ort, { session }, url) {
  const golden = arrays(await (await fetch(url)).arrayBuffer()), feeds = {};
  for (const name of session.inputNames) feeds[name] = new ort.Tensor("uint8", golden[name].data, golden[name].shape);
  const found = (await session.run(feeds)).vectors, wanted = golden.vectors;
  const [rows, width] = wanted.shape;
  const cosines = Array.from({ length: rows }, (_, row) => {
    let sum = 0;
    for (let at = row * width; at < (row + 1) * width; at++) sum += found.data[at] * wanted.data[at];
    return sum;
  });
  return Math.min(...cosines);
}

/** Read the arrays of an .npz file that is not compressed, by name; texts are left out. */
export function arrays(buffer) {
  const view = new DataView(buffer), found = {};
  const text = (start, length) => new TextDecoder().decode(new Uint8Array(buffer, start, length));
  for (let at = 0; view.getUint32(at, true) === 0x04034b50; ) {
    const name = text(at + 30, view.getUint16(at + 26, true));
    const begin = at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
    const header = text(begin + 10, view.getUint16(begin + 8, true));
    const [, kind, bytes] = header.match(/'descr': '.(\w)(\d+)'/);
    const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((size) => size.trim()).map(Number);
    const count = shape.reduce((product, size) => product * size, 1), start = begin + 10 + header.length;
    const end = start + count * bytes * (kind === "U" ? 4 : 1);
    const Type = { u1: Uint8Array, f4: Float32Array }[kind + bytes];
    if (Type) found[name.replace(".npy", "")] = { shape, data: new Type(buffer.slice(start, end)) };
    at = end;
  }
  return found;
}

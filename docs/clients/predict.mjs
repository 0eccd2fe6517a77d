// Predict with an exported run in a browser. `ort` is the module onnxruntime-web.

/** Open an exported run: its session, and how its inputs are made. */
export async function open(ort, url) {
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
  return { session: await ort.InferenceSession.create(bytes), inputs: JSON.parse(metadata(bytes).inputs) };
}

/** Predict for images (ImageBitmap, HTMLImageElement, …): tensors `vectors` (n, 384) and `expected` (n). */
export async function predict(ort, { session, inputs }, images) {
  const feeds = {};
  for (const [name, how] of Object.entries(inputs)) {
    const size = how.height * how.width * 3, pixels = new Uint8Array(images.length * size);
    images.forEach((image, at) => pixels.set(prepare(image, how), at * size));
    feeds[name] = new ort.Tensor("uint8", pixels, [images.length, how.height, how.width, 3]);
  }
  return session.run(feeds);
}

/** Resize an image and cut out its centre, as the metadata of an input says: RGB, 3 bytes for each pixel. */
export function prepare(image, how) {
  let [height, width] = how.size;
  if (how.resize !== "squash") {
    const ratios = [image.height / height, image.width / width];
    const ratio = Math[how.resize === "longest" ? "max" : "min"](...ratios);
    const whole = how.resize === "shortest" && height === width ? (side) => Math.floor(side + 1e-9) : Math.round;
    [height, width] = [image.height / ratio, image.width / ratio].map((side) => Math.max(1, whole(side)));
  }
  const pen = new OffscreenCanvas(how.width, how.height).getContext("2d");
  const place = [Math.round((how.width - width) / 2), Math.round((how.height - height) / 2), width, height];
  pen.imageSmoothingQuality = "high"; // the browser's own filter, not Pillow's
  pen.fillStyle = `rgb(${how.fill})`;
  pen.fillRect(0, 0, how.width, how.height);
  if (how.mirror) pen.setTransform(-1, 0, 0, 1, how.width, 0);
  pen.fillStyle = "white"; // behind what is transparent
  pen.fillRect(...place);
  pen.drawImage(image, ...place);
  return pen.getImageData(0, 0, how.width, how.height).data.filter((_, at) => at % 4 < 3);
}

/** Read the metadata of an ONNX file, which is a protocol buffer: names and texts, in its field 14. */
export function metadata(bytes) {
  const text = (part) => new TextDecoder().decode(part);
  const entries = fields(bytes).filter(([number]) => number === 14);
  return Object.fromEntries(entries.map(([, entry]) => fields(entry).map(([, part]) => text(part))));
}

function fields(bytes) {
  const found = [];
  let at = 0;
  const number = () => {
    let value = 0, scale = 1;
    for (; bytes[at] > 127; at++, scale *= 128) value += (bytes[at] & 127) * scale;
    return value + bytes[at++] * scale;
  };
  while (at < bytes.length) {
    const tag = number(), kind = tag % 8;
    if (kind === 0) number();
    const size = kind === 2 ? number() : { 0: 0, 1: 8, 5: 4 }[kind];
    found.push([Math.floor(tag / 8), bytes.subarray(at, at + size)]);
    at += size;
  }
  return found;
}

// Opens pages in Chromium and says what it saw.
// In (stdin): {"chromium": path, "visits": [{"url", "width", "height", "scheme", "picture"?, "full"?, "media"?, "pdf"?, "only_layout"?, "tabs"?, "styles"?}]}
// Out: one entry a visit: {"status", "title", "violations", "console", "overflow", "printed", "styles", "tabs"}
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const order = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({
  executablePath: order.chromium,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});

// How many sheets of paper a page takes, by the tree of the PDF.
async function printedPages(page, path) {
  const pdf = await page.pdf({ path, preferCSSPageSize: true });
  return pdf.toString("latin1").match(/\/Type\s*\/Page\b/g).length;
}

async function look(visit) {
  const context = await browser.newContext({
    viewport: { width: visit.width, height: visit.height },
    colorScheme: visit.scheme,
    isMobile: visit.width < 600,
    hasTouch: visit.width < 600,
  });
  const page = await context.newPage();
  const said = [];
  const requested = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("request", (request) => requested.push(request.url()));
  if (visit.media) await page.emulateMedia({ media: visit.media });
  const response = await page.goto(visit.url, { waitUntil: "load" });
  if (visit.picture) await page.screenshot({ path: visit.picture, fullPage: visit.full ?? false });
  const printed = visit.pdf ? await printedPages(page, visit.pdf) : null;
  let violations = [];
  if (!visit.only_layout) {
    // What the inspector evaluates is not under the page's policy, so the policy stays as it is served.
    await page.evaluate(axe);
    ({ violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] })));
  }
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  const canary = await page.evaluate(() => window.pwned ?? null);
  const chip = await page.evaluate(() => {
    const at = document.querySelector(".chip.critical");
    if (!at) return null;
    const style = getComputedStyle(at);
    return { printed: style.printColorAdjust, background: style.backgroundColor };
  });
  const filter = await page.evaluate(() => {
    const at = document.querySelector(".filter");
    return at && getComputedStyle(at).display;
  });
  // Each of visit.styles is [selector, property, pseudo-element or ""].
  const styles = await page.evaluate((asked) => asked.map(([selector, property, pseudo]) => {
    const at = document.querySelector(selector);
    return at && getComputedStyle(at, pseudo || null)[property];
  }), visit.styles ?? []);
  const title = await page.title();
  const tabs = [];
  for (let i = 0; i < (visit.tabs ?? 0); i += 1) {
    await page.keyboard.press("Tab");
    tabs.push(await page.evaluate(() => {
      const at = document.activeElement;
      const style = getComputedStyle(at);
      return { name: (at.innerText || at.tagName).trim(), field: at.name ?? "", outlined: style.outlineStyle !== "none" };
    }));
  }
  await context.close();
  return {
    status: response.status(),
    title,
    violations: violations.map((found) => `${found.id} (${found.impact}): ${found.nodes.map((node) => node.html).slice(0, 3).join(" | ")}`),
    console: said,
    requested: requested.filter((url) => !url.startsWith("data:")),
    overflow,
    canary,
    chip,
    filter,
    printed,
    styles,
    tabs,
  };
}

const seen = [];
const waiting = [...order.visits.entries()];
// Two at a time: most of a visit is waiting for pixels.
await Promise.all([1, 2].map(async () => {
  for (let next = waiting.shift(); next; next = waiting.shift()) seen[next[0]] = await look(next[1]);
}));
await browser.close();
process.stdout.write(JSON.stringify(seen));

// Says which links between the documents lead nowhere: a file that is not there, a heading that is not in it.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { trackedFiles } from './tracked-files.ts';

const documents = trackedFiles('*.md').filter((path) => existsSync(path));
const broken = documents.flatMap((path) =>
  linksIn(readFileSync(path, 'utf8'))
    .filter((link) => !leadsSomewhere(path, link))
    .map((link) => `${path}: ${link}`),
);
for (const line of broken) console.log(line);
console.log(`${documents.length} documents, ${broken.length} broken links`);
process.exitCode = broken.length === 0 ? 0 : 1;

/** Targets of inline links and of reference definitions, without those to other sites. */
function linksIn(markdown: string): string[] {
  const text = withoutCode(markdown);
  const inline = [...text.matchAll(/\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)/g)];
  const references = [...text.matchAll(/^\[[^\]]+\]:\s*<?([^\s>]+)>?/gm)];
  return [...inline, ...references].flatMap(([, link]) => (link && !/^[a-z][a-z+.-]*:/i.test(link) ? [link] : []));
}

function leadsSomewhere(from: string, link: string): boolean {
  const [path = '', anchor] = decodeURI(link).split('#');
  const target = path === '' ? from : path.startsWith('/') ? path.slice(1) : join(dirname(from), path);
  if (!existsSync(target)) return false;
  if (anchor === undefined || !target.endsWith('.md')) return true;
  return headingAnchors(readFileSync(target, 'utf8')).has(anchor);
}

/** The anchors that GitHub gives to a document's headings. */
function headingAnchors(markdown: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading = ''] of withoutFences(markdown).matchAll(/^#{1,6}\s+(.+?)\s*$/gm)) {
    const text = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const slug = text.replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(/\s/g, '-');
    let anchor = slug;
    for (let repeat = 1; anchors.has(anchor); repeat += 1) anchor = `${slug}-${repeat}`;
    anchors.add(anchor);
  }
  return anchors;
}

function withoutCode(markdown: string): string {
  return withoutFences(markdown).replaceAll(/`[^`\n]*`/g, '');
}

function withoutFences(markdown: string): string {
  return markdown.replaceAll(/^(```|~~~)[\s\S]*?^\1/gm, '');
}

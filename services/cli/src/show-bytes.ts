import { scrubLines } from '@realtime-service/telemetry';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const bytesPerLine = 16;

const spellOut = (character: string): string => `\\u{${character.codePointAt(0)?.toString(16)}}`;

/** Text of others in a line of a terminal: what could move the cursor or hide is spelt out. */
export const printable = (text: string): string => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, spellOut);

const printableLines = (text: string): string => text.replace(/[^\n\t]/gu, (character) => printable(character));

/** Offset, bytes, and those that are ASCII, as `hexdump -C` has them. */
const hexLines = (bytes: Buffer): string =>
  Array.from({ length: Math.ceil(bytes.length / bytesPerLine) }, (_, line) => {
    const part = bytes.subarray(line * bytesPerLine, (line + 1) * bytesPerLine);
    const hex = [...part].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const ascii = [...part].map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    const offset = (line * bytesPerLine).toString(16).padStart(8, '0');
    return `${offset}  ${hex.padEnd(bytesPerLine * 3 - 1)}  |${ascii}|`;
  }).join('\n');

/**
 * The secrets' names and patterns are ASCII, and Latin 1 keeps every byte: so they are found whatever the encoding of
 * the rest. A header may be a secret by its name.
 */
const withoutSecrets = (bytes: Buffer, header: string | undefined): Buffer => {
  const text = scrubLines(bytes.toString('latin1'));
  if (header === undefined) return Buffer.from(text, 'latin1');
  const scrubbed: Record<string, string> = JSON.parse(scrubLines(JSON.stringify({ [header]: text })));
  return Buffer.from(scrubbed[header] ?? '', 'latin1');
};

export type Shown =
  | { readonly text: string; readonly isCut: boolean }
  | { readonly hex: string; readonly isCut: boolean };

const decode = (bytes: Buffer): string | undefined => {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
};

/** As many of a record's bytes as may be shown, without secrets; as text where all of them are UTF-8. */
export const showBytes = (bytes: Buffer, maxBytes: number, header?: string): Shown => {
  const clean = withoutSecrets(bytes, header);
  const isCut = clean.length > maxBytes;
  const text = decode(clean);
  // A character may be cut in two.
  if (text !== undefined) return { text: isCut ? clean.toString('utf8', 0, maxBytes) : text, isCut };
  return { hex: clean.subarray(0, maxBytes).toString('hex'), isCut };
};

/** What is shown, for people. */
export const printShown = (shown: Shown): string => {
  const lines = 'text' in shown ? printableLines(shown.text) : hexLines(Buffer.from(shown.hex, 'hex'));
  return shown.isCut ? `${lines}\n… more: --bytes` : lines;
};

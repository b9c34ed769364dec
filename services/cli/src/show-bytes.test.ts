import { describe, expect, test } from 'vitest';
import { printable, printShown, showBytes } from './show-bytes.ts';

const show = (bytes: Buffer | string, maxBytes = 4_096, header?: string) =>
  showBytes(Buffer.from(bytes as string), maxBytes, header);

describe('what a dead letter holds', () => {
  test('UTF-8 is text, with its byte order mark', () => {
    expect(show('{"name":"Zoë 🎥"}')).toEqual({ text: '{"name":"Zoë 🎥"}', isCut: false });
    expect(show(Buffer.from('\uFEFF{}'))).toEqual({ text: '\uFEFF{}', isCut: false });
    expect(show('')).toEqual({ text: '', isCut: false });
  });

  test.each<[title: string, bytes: Buffer]>([
    ['a lone byte inside an id', Buffer.from([0x7b, 0xc3, 0x22])],
    ['UTF-16', Buffer.from('\uFEFF{"a":1}', 'utf16le')],
    ['no text at all', Buffer.from([0, 1, 0xff])],
  ])('C12: %s is hexadecimal, every byte of it', (_, bytes) => {
    expect(show(bytes)).toEqual({ hex: bytes.toString('hex'), isCut: false });
  });

  test('C12: what is large is cut, and says so', () => {
    expect(show('['.repeat(1_048_576), 10)).toEqual({ text: '[[[[[[[[[[', isCut: true });
    expect(show(Buffer.alloc(100, 0xff), 2)).toEqual({ hex: 'ffff', isCut: true });
    expect(printShown(show('['.repeat(20), 10))).toContain('--bytes');
  });

  test('hexadecimal has offsets, and the ASCII beside it', () => {
    expect(printShown(show(Buffer.from([...Buffer.from('{"userId":"ann"}'), 0xff])))).toBe(
      [
        '00000000  7b 22 75 73 65 72 49 64 22 3a 22 61 6e 6e 22 7d  |{"userId":"ann"}|',
        `00000010  ff${' '.repeat(45)}  |.|`,
      ].join('\n'),
    );
  });
});

describe('no secret is shown', () => {
  const secret = 'hunter2-hunter2';
  test.each<[title: string, bytes: Buffer | string]>([
    ['by its name', `{"password":"${secret}"}`],
    ['with spaces', `{ "accessToken" : "${secret}" }`],
    ['in a text that ends within it', `{"userId":"ann","token":"${secret}`],
    ['behind an escape at the very end', `{"token":"${secret}\\`],
    ['in a list', `{"cookie": ["${secret}", "${secret}"]}`],
    ['in what is no UTF-8', Buffer.concat([Buffer.from([0xff]), Buffer.from(`{"password":"${secret}"}`)])],
    ['as a bearer', `Authorization: Bearer ${secret}`],
  ])('%s', (_, bytes) => {
    const shown = show(bytes);
    expect(Buffer.from('text' in shown ? shown.text : Buffer.from(shown.hex, 'hex')).toString('latin1')).not.toContain(
      secret,
    );
    expect(printShown(shown).replaceAll(/[\n|]/g, '')).not.toContain('hunter2');
  });

  test('a header may be one by its name', () => {
    expect(show(secret, 4_096, 'authorization')).toEqual({ text: '[redacted]', isCut: false });
    expect(show(secret, 4_096, 'x-origin')).toEqual({ text: secret, isCut: false });
  });
});

describe('a terminal is not moved', () => {
  test('control characters and those that turn text around are spelt out', () => {
    expect(printable('a\u001b[2Jb\u202ec\nd')).toBe('a\\u{1b}[2Jb\\u{202e}c\\u{a}d');
    expect(printShown(show('{\n\t"a": "\u001b]0;x\u0007"\n}'))).toBe('{\n\t"a": "\\u{1b}]0;x\\u{7}"\n}');
  });

  test('nor by the ASCII beside hexadecimal', () => {
    expect(printShown(show(Buffer.from([0xff, 0x07, 0x1b, 0x1f, 0x20, 0x7e, 0x7f])))).toContain('|.... ~.|');
  });
});

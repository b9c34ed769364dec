import { describe, expect, it } from 'vitest';
import { ZodError } from 'zod';
import { fromHttpBinary, fromStructured } from './cloud-event.ts';
import { faultsOf } from './faults.ts';

const headers = {
  'ce-specversion': '1.0',
  'ce-id': 'A-1',
  'ce-source': '/services/rooms',
  'ce-type': 'room.locked',
  'ce-subject': 'room-42',
};

const faultsOfReading = (read: () => unknown) => {
  try {
    read();
  } catch (error) {
    if (error instanceof ZodError) return faultsOf(error);
    throw error;
  }
  return [];
};

describe('the binary mode over HTTP', () => {
  it('takes the attributes from the headers and the data from the body', () => {
    const more = {
      'content-type': 'application/json',
      'ce-sequence': '7',
      'ce-partitionkey': 'x',
      authorization: 'Bearer x',
    };
    expect(fromHttpBinary({ ...headers, ...more }, { a: 1 })).toEqual({
      context: {
        specversion: '1.0',
        id: 'A-1',
        source: '/services/rooms',
        type: 'room.locked',
        subject: 'room-42',
        datacontenttype: 'application/json',
        sequence: '7',
      },
      data: { a: 1 },
    });
  });

  it.each([
    ['percent-encoded UTF-8', 'caf%C3%A9%20%F0%9F%8E%A5', 'café 🎥'],
    ['an encoded percent sign', 'a%252Fb', 'a%2Fb'],
    ['quoted', '"room \\"42\\""', 'room "42"'],
    ['a lone quote', '"', '"'],
  ])('decodes a subject that is %s', (_, value, subject) => {
    expect(fromHttpBinary({ ...headers, 'ce-subject': value }, undefined).context.subject).toBe(subject);
  });

  it.each([
    ['a broken escape', 'a%', 'must be percent-encoded UTF-8'],
    ['an escape that is no UTF-8', '%C3', 'must be percent-encoded UTF-8'],
    ['raw bytes beyond ASCII, which Node shows as Latin-1', 'cafÃ©', 'must be percent-encoded'],
    ['NUL', 'a%00', 'must be well-formed Unicode without NUL'],
  ])('refuses a subject with %s', (_, value, message) => {
    expect(faultsOfReading(() => fromHttpBinary({ ...headers, 'ce-subject': value }, undefined))).toEqual([
      { path: '/subject', message },
    ]);
  });

  it('refuses a body that is no JSON', () => {
    const faults = faultsOfReading(() => fromHttpBinary({ ...headers, 'content-type': 'text/plain' }, 'x'));
    expect(faults).toEqual([{ path: '/datacontenttype', message: 'must be JSON' }]);
  });
});

describe('the structured mode', () => {
  it('refuses binary data', () => {
    const event = {
      specversion: '1.0',
      id: 'A-1',
      source: '/s',
      type: 'room.locked',
      subject: 'r',
      data_base64: 'e30=',
    };
    expect(faultsOfReading(() => fromStructured(event))).toEqual([
      { path: '/data_base64', message: 'must be absent: data is JSON' },
    ]);
    expect(faultsOfReading(() => fromStructured({ ...event, data_base64: null }))).toEqual([]);
  });
});

describe('fault paths', () => {
  it('are JSON pointers', () => {
    const faults = faultsOf(
      new ZodError([{ code: 'custom', path: ['a/b', '~', 0], message: 'x', input: undefined }]),
      '/data',
    );
    expect(faults).toEqual([{ path: '/data/a~1b/~0/0', message: 'x' }]);
  });
});

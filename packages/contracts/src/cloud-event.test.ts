import { describe, expect, it } from 'vitest';
import { ZodError } from 'zod';
import { fromHttpBinary, fromStructured, isStructured, toBinaryHeaders } from './cloud-event.ts';
import { faultsOf } from './faults.ts';
import { readRecord } from './record.ts';

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
    ['a tab', 'a\tb', 'must be percent-encoded'],
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

describe('the binary mode of Kafka', () => {
  const context = { specversion: '1.0', id: 'A-1', source: '/s', type: 'room.locked', subject: 'r' } as const;
  const attributes = {
    ce_specversion: '1.0',
    ce_id: 'A-1',
    ce_source: '/s',
    ce_type: 'room.locked',
    ce_subject: 'r',
  };

  it.each([
    [undefined, 'application/json'],
    ['application/vnd.rooms+json', 'application/vnd.rooms+json'],
    ['application/cloudevents+json', 'application/json'],
  ])('says once what the data are: %s as %s', (datacontenttype, contentType) => {
    const said = datacontenttype === undefined ? {} : { datacontenttype };
    expect(toBinaryHeaders({ ...context, ...said })).toEqual({ ...attributes, 'content-type': contentType });
  });

  it('pads a sequence, so that texts compare as numbers do', () => {
    expect(toBinaryHeaders({ ...context, sequence: '7' }).ce_sequence).toBe('00000000000000000007');
  });

  const recordOf = (headers: Readonly<Record<string, string>>, value: Uint8Array | null = null) =>
    readRecord({ value, headers: Object.fromEntries(Object.entries(headers).map(([k, v]) => [k, Buffer.from(v)])) });

  it('reads names of headers in any case, also beside others in lower case', () => {
    const { ce_id, ...others } = attributes;
    expect(recordOf({ ...others, CE_ID: ce_id })).toMatchObject({ kind: 'event', event: { context } });
  });

  it('reads what the data are from their attribute, where there is no content type', () => {
    expect(recordOf({ ...attributes, ce_datacontenttype: 'text/plain' })).toMatchObject({
      kind: 'unreadable',
      faults: [{ path: '/datacontenttype', message: 'must be JSON' }],
    });
  });

  it('takes the content type for what the data are, where their attribute says otherwise', () => {
    const both = { ...attributes, 'content-type': 'application/json', ce_datacontenttype: 'text/plain' };
    expect(recordOf(both)).toMatchObject({ kind: 'event' });
  });

  it.each([
    ['schema_registry_prefix', [0, 1, 2, 3, 4, 0x7b, 0x7d]],
    ['not_json', [0x7b, 0]],
  ])('tells a prefix of a schema registry by its first byte: %s', (why, bytes) => {
    expect(recordOf(attributes, Uint8Array.from(bytes))).toMatchObject({ kind: 'unreadable', why });
  });
});

describe('the structured mode', () => {
  it.each(['application/cloudevents+json', 'Application/CloudEvents+JSON ; charset=utf-8'])('is told by %s', (type) => {
    expect(isStructured(type)).toBe(true);
  });

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

package storage

import (
	"context"
	"iter"
)

const (
	// pageBytes is about what a page of Pages takes, in bytes of values.
	pageBytes = 8 << 20
	// firstPageKeys is small, since nobody knows how large the values are.
	firstPageKeys = 8
	maxPageKeys   = 1000
)

// Pages reads the keys that opts selects page by page, all as of one revision. A page has
// opts.Limit keys at most, and so few that it takes some megabytes, however large the values
// are. The sequence ends with the first error.
func Pages(ctx context.Context, store Interface, prefix string, opts ListOptions) iter.Seq2[ListResponse, error] {
	return func(yield func(ListResponse, error) bool) {
		most := int64(maxPageKeys)
		if opts.Limit > 0 {
			most = min(most, opts.Limit)
		}
		opts.Limit = min(firstPageKeys, most)
		for {
			page, err := store.List(ctx, prefix, opts)
			if !yield(page, err) || err != nil || !page.More {
				return
			}
			bytes := int64(1)
			for _, kv := range page.KVs {
				bytes += int64(len(kv.Value))
			}
			opts.Revision, opts.From = page.Revision, page.KVs[len(page.KVs)-1].Key+"\x00"
			opts.Limit = min(max(opts.Limit*pageBytes/bytes, 1), 4*opts.Limit, most)
		}
	}
}
